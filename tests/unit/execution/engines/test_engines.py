"""Each engine of the contract has its traits, its settings and its module."""

from typing import get_args

import pytest
from boatyard.agent.v1 import agent_pb2 as pb

from services.agent.engines import ENGINES, wire_of
from services.agent.settings import DEFAULT_ENGINE, AgentSettings, Engine
from services.execution.engine import load


def test_every_engine_of_the_contract_is_known_everywhere() -> None:
    assert {engine().name for engine in get_args(Engine)} == set(ENGINES)
    assert DEFAULT_ENGINE in ENGINES
    for own in (engine() for engine in get_args(Engine)):
        case = pb.AgentSettings.DESCRIPTOR.fields_by_name[own.name]
        assert case.GetOptions().HasExtension(pb.traits), f"{own.name} says nothing of itself"
        assert load(own.name).speaks is wire_of(own.name)
        assert ENGINES[own.name].needs_model == (wire_of(own.name) is not None)
        for field, _ in load(own.name).violations(AgentSettings(engine=own), own, ""):
            assert field.startswith("spec."), f"{own.name} names no field of the request"


def test_an_engine_that_is_not_known_is_refused() -> None:
    with pytest.raises(LookupError, match="'abacus'"):
        load("abacus")
