"""Converts the settings of an agent between messages and values. The options of the contract say what is valid."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypedDict

from boatyard.agent.v1 import agent_pb2 as pb
from boatyard.agent.v1 import ask_pb2, limits_pb2, model_pb2, replay_pb2, sandbox_pb2, usage_pb2

from services.agent.allowance import Allowance
from services.agent.asks import ModelGate, Reservation, ReservationAnswer
from services.agent.limits import Limits
from services.agent.providers import ModelProvider
from services.agent.recordings import Matching, RecordingError, check
from services.agent.settings import AgentSettings, environment_complaint, secret_complaints
from services.agent.usage import ModelUsageSum, UsageSum
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check
from services.sandbox.host_patterns import HostPattern
from services.sandbox.spec import Network, Tier

AGENT: Final = Mapper(AgentSettings, pb.AgentSettings)
LIMITS: Final = Mapper(Limits, limits_pb2.ExecutionLimits)
PROVIDER: Final = Mapper(ModelProvider, model_pb2.ModelProvider)
USAGE: Final = Mapper(UsageSum, usage_pb2.UsageSum)
MODEL_USAGE: Final = Mapper(ModelUsageSum, usage_pb2.ModelUsageSum)
MODEL_GATE: Final = Mapper(ModelGate, ask_pb2.ModelGate)
RESERVATION: Final = Mapper(Reservation, ask_pb2.Reservation)
RESERVATION_ANSWER: Final = Mapper(ReservationAnswer, ask_pb2.ReservationAnswer)

REPLAY_MATCHINGS: Final = {
    replay_pb2.Replay.MATCHING_UNSPECIFIED: Matching.STRICT,
    replay_pb2.Replay.MATCHING_STRICT: Matching.STRICT,
    replay_pb2.Replay.MATCHING_ORDER: Matching.ORDER,
}

_TIERS: Final = {tier: sandbox_pb2.SandboxTier.Value(f"SANDBOX_TIER_{tier.name}") for tier in Tier}
_NETWORKS: Final = {network: sandbox_pb2.Network.Value(f"NETWORK_{network.name}") for network in Network}


class AllowanceFields(TypedDict):
    """The fields in which messages have an allowance."""

    allowed_tiers: "list[sandbox_pb2.SandboxTier.ValueType]"
    allowed_networks: "list[sandbox_pb2.Network.ValueType]"
    limits: limits_pb2.ExecutionLimits


def allowance_to_proto(allowance: Allowance | None) -> AllowanceFields:
    """Return the fields for an allowance, in the order of the contract's enums; empty for one that is not known."""
    if allowance is None:
        return {"allowed_tiers": [], "allowed_networks": [], "limits": limits_pb2.ExecutionLimits()}
    return {
        "allowed_tiers": sorted(_TIERS[tier] for tier in allowance.tiers),
        "allowed_networks": sorted(_NETWORKS[network] for network in allowance.networks),
        "limits": LIMITS.to_proto(allowance.limits),
    }


def allowance_from_proto(
    tiers: Iterable[int], networks: Iterable[int], limits: limits_pb2.ExecutionLimits
) -> Allowance:
    """Read an allowance. Choices of a later version are left out: nothing here could ask for them."""
    known_tiers, known_networks = set(tiers), set(networks)
    return Allowance.of(
        {tier for tier, number in _TIERS.items() if number in known_tiers},
        {network for network, number in _NETWORKS.items() if number in known_networks},
        LIMITS.from_proto(limits),
    )


def agent_violations(message: pb.AgentSettings) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for what no option of the contract can say: the form of hosts, and a size of all together."""
    yield from host_violations(message.allowed_hosts)
    if complaint := environment_complaint(message.environment):
        yield "environment", complaint
    yield from ((f'secrets["{name}"]', complaint) for name, complaint in secret_complaints(message.secrets))


def replay_to_proto(matching: Matching, recording: bytes = b"", size: int = 0) -> replay_pb2.Replay:
    """Write a replay, with its recording for a node, or with the size of that alone for everybody else."""
    number = replay_pb2.Replay.Matching.Value(f"MATCHING_{matching}")
    return replay_pb2.Replay(recording=recording, matching=number, size_bytes=size)


def recording_complaint(replay: replay_pb2.Replay) -> str | None:
    """Return why a recording cannot be replayed, as far as its beginning shows; None when it can."""
    try:
        check(replay.recording)
    except RecordingError as error:
        return str(error)
    return None


def host_violations(patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for entries of a field `allowed_hosts` that are no patterns of hosts."""
    for index, pattern in enumerate(patterns):
        try:
            HostPattern.parse(pattern)
        except ValueError as error:
            yield f"allowed_hosts[{index}]", str(error)


CHECKS: Final[Mapping[str, Check]] = {pb.AgentSettings.DESCRIPTOR.full_name: agent_violations}
"""The rules in code, for requests that have settings: see `services.common.rpc.rules`."""
