"""Converts the settings of an agent between messages and values. The options of the contract say what is valid."""

from collections.abc import Iterator, Mapping
from typing import Final

from boatyard.agent.v1 import agent_pb2 as pb

from services.agent.settings import AgentSettings, environment_complaint
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check
from services.sandbox.host_patterns import HostPattern

AGENT: Final = Mapper(AgentSettings, pb.AgentSettings)


def agent_violations(message: pb.AgentSettings) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for what no option of the contract can say: the form of hosts, and a size of all together."""
    for index, pattern in enumerate(message.allowed_hosts):
        try:
            HostPattern.parse(pattern)
        except ValueError as error:
            yield f"allowed_hosts[{index}]", str(error)
    if complaint := environment_complaint(message.environment):
        yield "environment", complaint


CHECKS: Final[Mapping[str, Check]] = {pb.AgentSettings.DESCRIPTOR.full_name: agent_violations}
"""The rules in code, for requests that have settings: see `services.common.rpc.rules`."""
