"""What is known of each engine, as the contract says: only an engine's own module asks which engine it is."""

from collections.abc import Mapping
from typing import Final

from boatyard.agent.v1 import agent_pb2, model_pb2

from services.agent.providers import ModelWire
from services.common.rpc.enums import short_names

ENGINES: Final[Mapping[str, agent_pb2.EngineTraits]] = {
    case.name: case.GetOptions().Extensions[agent_pb2.traits]
    for case in agent_pb2.AgentSettings.DESCRIPTOR.oneofs_by_name["engine"].fields
}
"""The traits of all engines, in the order of the contract, by the names of their fields there."""

_WIRES: Final = short_names(model_pb2.ModelWire.DESCRIPTOR)


def wire_of(engine: str) -> ModelWire | None:
    """Return by which wire an engine asks its model; None when it asks none, or its program asks by any."""
    number = ENGINES[engine].wire
    return ModelWire(_WIRES[number]) if number else None
