"""Each engine has its row of traits, its reader, its runner, and what it reaches its model with."""

import pytest
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.engines import DEFAULT_ENGINE, ENGINES, traits
from services.common.errors import FailedPrecondition
from services.execution.engines import registry, wire
from services.execution.engines.credentials import EngineCredentials
from services.execution.settings import ExecutionSettings


def test_every_engine_of_the_contract_is_known_everywhere() -> None:
    contract = [field.name for field in pb.ExecutionSpec.DESCRIPTOR.oneofs_by_name["engine"].fields]
    assert contract == list(ENGINES)
    for name in ENGINES:
        assert callable(registry.load(name))
        spec = pb.ExecutionSpec()
        getattr(spec, name).SetInParent()
        assert {field.split(".")[1] for field, _ in wire.violations(spec)} == {name}


def test_an_engine_that_is_not_known_is_refused() -> None:
    assert wire.violations(pb.ExecutionSpec()) == [
        ("spec.command", "is required, or spec.anthropic: no other engine is known here")
    ]
    with pytest.raises(LookupError, match="'abacus'"):
        registry.load("abacus")
    assert traits("abacus") is ENGINES[DEFAULT_ENGINE]


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
