"""Each engine of the contract has its traits, its settings, its module, and what it reaches its model with."""

from typing import get_args

import pytest
from boatyard.agent.v1 import agent_pb2 as pb

from services.agent.engines import ENGINES
from services.agent.settings import DEFAULT_ENGINE, AgentSettings, Engine
from services.common.errors import FailedPrecondition
from services.execution.engine import load
from services.execution.service.credentials import EngineCredentials
from services.execution.settings import ExecutionSettings


def test_every_engine_of_the_contract_is_known_everywhere() -> None:
    assert {engine().name for engine in get_args(Engine)} == set(ENGINES)
    assert DEFAULT_ENGINE in ENGINES
    for own in (engine() for engine in get_args(Engine)):
        case = pb.AgentSettings.DESCRIPTOR.fields_by_name[own.name]
        assert case.GetOptions().HasExtension(pb.traits), f"{own.name} says nothing of itself"
        for field, _ in load(own.name).violations(AgentSettings(engine=own), own, ""):
            assert field.startswith("spec."), f"{own.name} names no field of the request"


def test_an_engine_that_is_not_known_is_refused() -> None:
    with pytest.raises(LookupError, match="'abacus'"):
        load("abacus")


def test_what_needs_a_model_is_refused_without_what_reaches_it() -> None:
    none = EngineCredentials.from_settings(ExecutionSettings(anthropic_api_key=None))
    some = EngineCredentials.from_settings(ExecutionSettings(anthropic_api_key="key-4711"))
    for name, engine in ENGINES.items():
        some.check(name, "e-1")
        assert bool(some.of(name)) == engine.needs_model
        assert none.of(name) == b""
        if engine.needs_model:
            with pytest.raises(FailedPrecondition) as refused:
                none.check(name, "e-1")
            assert refused.value.reason == "MODEL_KEY_MISSING"
        else:
            none.check(name, "e-1")
