"""What a service does beside serving: it never goes on without it, and never hides why it cannot."""

import asyncio

import pytest

from services.common import program
from services.common.errors import StartError


async def _for_ever(ended: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(name)


async def test_work_ends_with_what_is_inside() -> None:
    ended: list[str] = []
    async with program.background_tasks({name: _for_ever(ended, name) for name in ("one", "two")}):
        await asyncio.sleep(0)
    assert sorted(ended) == ["one", "two"]


async def test_what_is_inside_ends_with_the_error_of_work_that_breaks() -> None:
    async def breaks() -> None:
        raise ValueError("the loop is lost")

    ended: list[str] = []
    with pytest.raises(ValueError, match="the loop is lost"):
        async with program.background_tasks({"other": _for_ever(ended, "other"), "breaks": breaks()}):
            await asyncio.Event().wait()
    assert ended == ["other"]


async def test_an_error_inside_comes_out_as_it_is() -> None:
    ended: list[str] = []
    cause = OSError("taken")

    async def serve() -> None:
        await asyncio.sleep(0)
        raise StartError("cannot listen") from cause

    with pytest.raises(StartError, match="cannot listen") as raised:
        async with program.background_tasks({"work": _for_ever(ended, "work")}):
            await serve()
    assert (ended, raised.value.__cause__) == (["work"], cause)


async def test_work_that_is_done_disturbs_nobody() -> None:
    async def done() -> None:
        return

    async with program.background_tasks({"done": done()}):
        await asyncio.sleep(0)
