"""Providers that were given are there for their runner, come back after a restart, and are forgotten at the end."""

import asyncio

from services.agent.providers import ModelProvider, ModelWire
from services.execution.service.given import GivenProviders

ONE = (ModelProvider(name="one", wire=ModelWire.MESSAGES, base_url="http://one", keys=("a-key-of-it",)),)


async def test_whoever_needs_them_waits_until_they_are_given_again() -> None:
    given = GivenProviders()
    waiting = asyncio.ensure_future(given.of("a", are_needed=True))
    await given.give("b", ONE)
    assert not waiting.done()
    await given.give("a", ONE)
    assert await waiting == ONE


async def test_nobody_waits_for_ever_or_without_need() -> None:
    given = GivenProviders(within_s=0.01)
    assert await given.of("a", are_needed=True) == ()
    assert await given.of("a", are_needed=False) == ()


async def test_those_of_an_execution_that_has_ended_are_forgotten() -> None:
    given = GivenProviders()
    await given.give("a", ONE)
    given.forget("a")
    assert await given.of("a", are_needed=False) == ()
    assert "a-key-of-it" not in repr(ONE)
