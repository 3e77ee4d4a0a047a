"""Those who wait are served by caller in turn, whatever order they came in, and no faster than they may be."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.turns import Line, Pace

WAITERS = st.lists(st.sampled_from("abc"), max_size=30).map(lambda callers: list(zip(callers, range(30), strict=False)))


def lined_up(waiters: list[tuple[str, int]]) -> Line[tuple[str, int]]:
    line: Line[tuple[str, int]] = Line()
    for waiter in waiters:
        line.add(waiter[0], waiter)
    return line


def drained(line: Line[tuple[str, int]]) -> list[tuple[str, int]]:
    popped = []
    while line:
        popped.append(line.pop())
    return popped


@settings(max_examples=50, deadline=None)
@given(WAITERS)
def test_a_callers_nth_waiter_waits_for_n_of_each_other_caller(waiters: list[tuple[str, int]]) -> None:
    popped = drained(lined_up(waiters))
    assert sorted(popped) == sorted(waiters)
    for caller in "abc":
        own = [waiter for waiter in popped if waiter[0] == caller]
        assert own == [waiter for waiter in waiters if waiter[0] == caller], "a caller's own order is kept"
        for number, waiter in enumerate(own, 1):
            before = [other for other, _ in popped[: popped.index(waiter)] if other != caller]
            assert max((before.count(other) for other in before), default=0) <= number


@settings(max_examples=50, deadline=None)
@given(WAITERS, st.data())
def test_who_leaves_is_not_served_and_the_others_are(waiters: list[tuple[str, int]], data: st.DataObject) -> None:
    line = lined_up(waiters)
    left = data.draw(st.sets(st.sampled_from(waiters))) if waiters else set()
    for waiter in left:
        line.remove(waiter[0], waiter)
        line.remove(waiter[0], waiter)
    assert sorted(drained(line)) == sorted(set(waiters) - left)


async def test_a_pace_is_kept_and_a_caller_with_many_makes_another_wait_for_one() -> None:
    pace = Pace(per_second=500, burst=5)
    began: list[str] = []

    async def wait(caller: str) -> None:
        await pace.turn(caller)
        began.append(caller)

    clock = asyncio.get_running_loop().time
    start = clock()
    await asyncio.gather(*map(wait, ["greedy"] * 30 + ["modest"]))
    assert clock() - start >= 25 / 500
    assert began.index("modest") <= 7, "after those that need not wait, and one more"


async def test_who_is_cancelled_while_it_waits_takes_nobodys_turn() -> None:
    pace = Pace(per_second=200, burst=0)
    waiting = [asyncio.create_task(pace.turn("abc"[number % 3])) for number in range(20)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting[1:]] == [False, True] * 9 + [False]
