"""A door that is asked to end before it can serve ends all the same, by itself."""

import os
import select
import signal
from pathlib import Path

import pytest

from services.agent.providers import ModelProvider, ModelWire
from services.execution.door.child import ModelDoor
from services.execution.eventlog import EventWriter

PROVIDER = ModelProvider(name="one", wire=ModelWire.MESSAGES, base_url="https://models.example")
TOO_LONG_S = 10.0


def asked_to_end() -> None:
    """As the runner does whose agent has ended at once."""
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def door() -> ModelDoor:
    return ModelDoor([PROVIDER])


def test_what_asks_it_to_end_before_it_serves_is_not_lost(door: ModelDoor, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a runner acts on it, too
    try:
        with EventWriter(tmp_path / "events") as writer:
            door.open_here()
            door.start(asked_to_end)
            assert door.reports is not None
            has_ended = bool(select.select([door.reports], [], [], TOO_LONG_S)[0])
            door.close(writer)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert has_ended


def test_who_makes_it_is_asked_to_end_as_before(door: ModelDoor, tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with EventWriter(tmp_path / "events") as writer:
        door.open_here()
        door.start()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        door.close(writer)
