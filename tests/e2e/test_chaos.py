"""Processes of every kind are killed, paused and restarted at random while jobs of every sort run: each job has its one
right end, what others see of it was done once, and nothing is left. `bench/chaos.py` does the same for longer, on more
cells; the seed of a failure can be given to it.
"""

import random
from pathlib import Path

import pytest

from tests.kit.chaos.run import Plan, wreak


@pytest.mark.slow
async def test_one_cell_in_chaos(scratch: Path) -> None:
    plan = Plan(seed=random.randrange(10**6), jobs=20, seconds=15, every_seconds=1.5)
    report = await wreak(plan, scratch)

    assert not report.complaints, report
