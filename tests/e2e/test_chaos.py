"""Processes of every kind are killed, paused and restarted at random while jobs of every sort run: each job has its one
right end, what others see of it was done once, and nothing is left. `bench/chaos.py` does the same for longer, on more
cells; the seed of a failure can be given to it.
"""

from pathlib import Path

import pytest

from tests.kit.chaos.run import Plan, run_chaos
from tests.kit.chaos.spending import run_spending


@pytest.mark.slow
@pytest.mark.timeout(400)  # it waits long for jobs that do not end, to say which
async def test_a_cell_and_a_coordinator_in_chaos(scratch: Path) -> None:
    plan = Plan(seed=4, jobs=24, seconds=12, coordinators=1, every_seconds=1.2)
    report = await run_chaos(plan, scratch)

    assert not report.complaints, report


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_one_daily_budget_holds_in_chaos(scratch: Path) -> None:
    plan = Plan(seed=6, jobs=10, seconds=6, coordinators=1, every_seconds=1.2)
    report = await run_spending(plan, scratch)

    assert not report.complaints, report
