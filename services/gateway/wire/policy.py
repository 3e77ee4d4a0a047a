"""Converts policies between messages and values; the rules of the contract, and one here, say what is valid."""

from collections.abc import Iterator, Mapping
from typing import Final

from boatyard.gateway.v1 import policy_pb2 as pb

from services.agent.wire import CHECKS as AGENT_CHECKS
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check
from services.lifecycle.model.policy import NEVER_RETRIED, Policy

POLICY: Final[Mapper[Policy[None], pb.Policy]] = Mapper(Policy, pb.Policy)


def _policy_violations(message: pb.Policy) -> Iterator[tuple[str, str]]:
    for index, reason in enumerate(message.retry_on):
        if reason in NEVER_RETRIED:
            yield f"retry_on[{index}]", f"{reason} is never retried"


CHECKS: Final[Mapping[str, Check]] = {**AGENT_CHECKS, pb.Policy.DESCRIPTOR.full_name: _policy_violations}
"""The rules of settings in code, for requests that have them: see `services.common.rpc.rules`."""
