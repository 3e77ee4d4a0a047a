"""What tells one specification from another."""

import pytest
from boatyard.agent.v1 import model_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.rpc.secrecy import without_secrets
from services.execution.wire.requests import digest


def spec(**provider: object) -> pb.ExecutionSpec:
    """A specification with a provider of models."""
    known = {"name": "a", "wire": model_pb2.MODEL_WIRE_CHAT, "base_url": "https://a.example/v1", "keys": ["key-one"]}
    return pb.ExecutionSpec(job_id="job-1", prompt="Go", providers=[model_pb2.ModelProvider(**{**known, **provider})])


@pytest.mark.parametrize(
    "changed",
    [
        {"keys": ["key-two"]},
        {"keys": []},
        {"base_url": "https://b.example"},
        {"name": "b", "models": ["m"], "aliases": {"m": "n"}},
    ],
)
def test_providers_as_they_are_now_make_no_other_specification(changed: dict[str, object]) -> None:
    assert digest(spec(**changed)) == digest(spec())


def test_a_specification_without_providers_is_what_it_was() -> None:
    none = pb.ExecutionSpec(job_id="job-1", prompt="Go")
    assert digest(none) == digest(spec())
    assert digest(none) != digest(pb.ExecutionSpec(job_id="job-1", prompt="Stop"))


def test_keys_are_secret() -> None:
    assert "key-one" in str(spec())
    assert "key-one" not in str(without_secrets(spec()))
