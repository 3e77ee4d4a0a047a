"""What is known of each engine, as the contract says: only an engine's own module asks which engine it is."""

from collections.abc import Mapping
from typing import Final

from boatyard.agent.v1 import agent_pb2

ENGINES: Final[Mapping[str, agent_pb2.EngineTraits]] = {
    case.name: case.GetOptions().Extensions[agent_pb2.traits]
    for case in agent_pb2.AgentSettings.DESCRIPTOR.oneofs_by_name["engine"].fields
}
"""The traits of all engines, in the order of the contract, by the names of their fields there."""
