"""Which executions begin in a container that the service cannot enter."""

import os
from pathlib import Path

import pytest

from services.agent.providers import ModelProvider, ModelWire
from services.common.errors import FailedPrecondition
from services.execution.model import Bounds, Plan, Purpose, StartRequest
from services.execution.service import doors
from services.sandbox.container_engines import Engine
from services.sandbox.spec import SandboxSpec, Tier

ONE = (ModelProvider(name="one", wire=ModelWire.MESSAGES, base_url="https://one", keys=("a-key-of-it",)),)


def docker(*, is_rootless: bool) -> Engine:
    return Engine("docker", False, is_rootless, has_limits=True, has_filter=True, version="28")


def asked(engine: str = "command", *, needs_door: bool, has_door: bool = True) -> StartRequest:
    sandbox = SandboxSpec((b"true",), Path("/"), (), {}, tier=Tier.CONTAINER)
    plan = Plan("run", engine, sandbox, Bounds(1.0, None, 1), has_door=has_door)
    return StartRequest("run", b"", Purpose.AGENT, "", plan, b"", ONE if has_door else (), needs_door=needs_door)


@pytest.fixture(autouse=True)
def _no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_an_agent_that_named_no_provider_begins_without_a_door_and_is_told() -> None:
    found = doors.fitting(asked(needs_door=False), docker(is_rootless=False))
    assert (found.plan.has_door, found.providers) == (False, ())
    assert "docker 28" in found.plan.no_door
    assert "left out" in found.plan.no_door


def test_one_that_named_providers_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="rootless podman") as refused:
        doors.fitting(asked(needs_door=True), docker(is_rootless=False))
    assert refused.value.reason == "DOOR_UNAVAILABLE"


@pytest.mark.parametrize(
    ("request_", "is_rootless"),
    [
        (asked(needs_door=True), True),
        (asked(needs_door=False), True),
        (asked("anthropic", needs_door=True), False),  # its loop is outside of the container, and so is its door
        (asked("anthropic", needs_door=False), False),
        (asked(needs_door=True, has_door=False), False),
    ],
)
def test_all_others_begin_as_they_were_asked_for(request_: StartRequest, is_rootless: bool) -> None:
    assert doors.fitting(request_, docker(is_rootless=is_rootless)) == request_
