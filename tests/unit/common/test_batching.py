"""Many who ask share few questions, and each answer is newer than its question."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from services.common.batching import Batches
from services.common.turns import current_turns, set_current_turns


class Clerk:
    """Answers with the number of the question; knows nothing of what is negative."""

    def __init__(self) -> None:
        self.questions: list[list[int]] = []
        self.turns: set[str] = set()
        self.problem: Exception | None = None

    async def ask(self, keys: Collection[int]) -> Mapping[int, int]:
        self.questions.append(list(keys))
        self.turns.add(current_turns())
        number = len(self.questions)
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        return {key: number for key in keys if key >= 0}


async def test_who_asks_while_a_question_is_asked_gets_the_next_ones_answer() -> None:
    clerk = Clerk()
    batches = Batches(clerk.ask)
    first = [asyncio.create_task(batches.answer(1)) for _ in range(500)]
    while not clerk.questions:
        await asyncio.sleep(0)
    later = [asyncio.create_task(batches.answer(key)) for key in (1, 2, -1)]
    assert await asyncio.gather(*first) == [1] * 500
    assert await asyncio.gather(*later) == [2, 2, None]
    assert clerk.questions == [[1], [1, 2, -1]]


async def test_a_question_is_about_so_many_and_the_others_come_next() -> None:
    clerk = Clerk()
    batches = Batches(clerk.ask, most=2)
    assert await asyncio.gather(*map(batches.answer, range(5))) == [1, 1, 2, 2, 3]


async def test_a_failure_is_for_those_who_asked_and_not_for_the_next() -> None:
    clerk = Clerk()
    batches = Batches(clerk.ask)
    clerk.problem = ZeroDivisionError()
    failed = await asyncio.gather(*map(batches.answer, range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [ZeroDivisionError] * 3
    clerk.problem = None
    assert await batches.answer(1) == 2


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    clerk = Clerk()
    batches = Batches(clerk.ask)
    leaving, staying = (asyncio.create_task(batches.answer(1)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 1
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_question_uses_its_own_turns_and_not_those_of_who_was_first() -> None:
    clerk = Clerk()
    batches = Batches(clerk.ask, turns_of="readers")

    async def ask() -> None:
        set_current_turns("greedy")
        await batches.answer(1)

    await asyncio.create_task(ask())
    assert clerk.turns == {"readers"}
