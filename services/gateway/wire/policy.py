"""Converts policies between messages and values; the rules of the contract, and those here, say what is valid."""

from collections.abc import Iterator, Mapping
from typing import Final

from boatyard.agent.v1 import agent_pb2
from boatyard.gateway.v1 import floor_pb2
from boatyard.gateway.v1 import policy_pb2 as pb

from services.agent.wire import agent_violations, host_violations
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check
from services.lifecycle.model.policy import NEVER_RETRIED, Policy
from services.redaction.strand import token_in

_FOR_AGENTS: Final = "give it in `agent.secrets` (--secret NAME=@FILE)"
_FOR_CHECKS: Final = "leave it out, checks get no secrets"

POLICY: Final[Mapper[Policy[None], pb.Policy]] = Mapper(Policy, pb.Policy)


def _token_complaint(text: str, advice: str) -> str | None:
    """Return what is wrong with a text that everyone may read and that has somebody's token in it; None without one."""
    token = token_in(text)
    return None if token is None else f"contains what looks like a secret ({token}), and everyone may read it: {advice}"


def _agent_violations(message: agent_pb2.AgentSettings) -> Iterator[tuple[str, str]]:
    yield from agent_violations(message)
    for name, value in message.environment.items():
        if complaint := _token_complaint(value, _FOR_AGENTS):
            yield f'environment["{name}"]', complaint
    if complaint := _token_complaint(message.command.line, _FOR_AGENTS):
        yield "command.line", complaint


def _verify_violations(message: pb.Policy | floor_pb2.Floor) -> Iterator[tuple[str, str]]:
    if complaint := _token_complaint(message.verify_command, _FOR_CHECKS):
        yield "verify_command", complaint


def _floor_violations(message: floor_pb2.Floor) -> Iterator[tuple[str, str]]:
    yield from host_violations(message.allowed_hosts)
    yield from _verify_violations(message)


def _policy_violations(message: pb.Policy) -> Iterator[tuple[str, str]]:
    yield from _verify_violations(message)
    for index, reason in enumerate(message.retry_on):
        if reason in NEVER_RETRIED:
            yield f"retry_on[{index}]", f"{reason} is never retried"


CHECKS: Final[Mapping[str, Check]] = {
    agent_pb2.AgentSettings.DESCRIPTOR.full_name: _agent_violations,
    floor_pb2.Floor.DESCRIPTOR.full_name: _floor_violations,
    pb.Policy.DESCRIPTOR.full_name: _policy_violations,
}
"""The rules of settings in code, for requests that have them: see `services.common.rpc.rules`."""
