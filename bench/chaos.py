"""Chaos: jobs of every sort on some cells and one PostgreSQL, while processes of every kind are killed, paused and
restarted at random, and the database is cut off twice. At the end it lists what was done, and every promise that did
not hold. There should be none; with any it exits with 1.

    python -m bench.chaos --jobs 300 --minutes 10 --cells 3

With --spending the jobs' agents ask a model instead, under one daily budget that is enough for some of them, and what
they ask it through is killed. The budget is never passed, its books have what the model has billed, and nothing stays
reserved.

    python -m bench.chaos --spending --jobs 50 --minutes 3 --cells 3
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench.kit.options import options
from bench.kit.postgres import postgres
from tests.kit.chaos.run import Plan, Report, run_chaos
from tests.kit.chaos.spending import run_spending


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cells", type=int, default=3, help="1 uses SQLite, unless --postgres is given")
    parser.add_argument("--coordinators", type=int, default=1, help="machines that run jobs without the database")
    parser.add_argument("--spending", action="store_true", help="jobs that ask models, under one daily budget")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--every", type=float, default=5, help="mean seconds between two faults injected into a cell")
    parser.add_argument("--outages", type=int, default=2, help="of the database, 20 s each: it is stopped, or hangs")
    parser.add_argument("--lose-a-cell", action="store_true", help="after 60 %% of the time one cell is lost for good")
    parser.add_argument("--keep", action="store_true", help="leave logs and databases where they are")
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="boatyard-chaos-"))
    try:
        report = _run(wanted, directory)
    finally:
        print(f"logs and databases: {directory}" if wanted.keep else "", flush=True)
        if not wanted.keep:
            shutil.rmtree(directory)
    print("\n".join(report.record.lines), report, sep="\n", flush=True)
    return 1 if report.complaints else 0


def _run(wanted: argparse.Namespace, directory: Path) -> Report:
    with contextlib.ExitStack() as stack:
        shared = wanted.cells > 1 or wanted.postgres
        database = stack.enter_context(postgres()) if shared else None
        plan = Plan(
            seed=wanted.seed,
            jobs=wanted.jobs,
            seconds=wanted.minutes * 60,
            cells=wanted.cells,
            coordinators=wanted.coordinators,
            every_seconds=wanted.every,
            outages=wanted.outages if database else 0,
            lose_a_cell=wanted.lose_a_cell,
        )
        return asyncio.run((run_spending if wanted.spending else run_chaos)(plan, directory, database))


if __name__ == "__main__":
    sys.exit(main())
