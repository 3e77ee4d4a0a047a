"""Work that many want is done once, and who comes while it is given up gets it all the same."""

import asyncio

import pytest

from services.git.model import ProgressListener
from services.git.single_flight import SingleFlight


async def test_who_asks_while_work_is_given_up_has_it_done_again() -> None:
    flights = SingleFlight[int]()
    begun, unwinding, unwound = asyncio.Event(), asyncio.Event(), asyncio.Event()
    runs = 0

    async def work(report: ProgressListener) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                unwinding.set()
                await unwound.wait()
        return runs

    first = asyncio.create_task(flights.join("key", work))
    await begun.wait()
    first.cancel()
    await unwinding.wait()
    second = asyncio.create_task(flights.join("key", work))
    await asyncio.sleep(0)
    assert runs == 1, "not beside what is still being given up"
    unwound.set()
    assert await second == 2
    with pytest.raises(asyncio.CancelledError):
        await first
