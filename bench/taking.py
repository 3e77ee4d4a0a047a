"""Taking a result from layers by what has changed, against reading every file of the same tree, in one run.

Each round changes ten files, then takes the result both ways; they give the same commit. Each sandbox mounts the
layers, as an ordinary user and as root alike, so that the numbers apply to both. Results are medians in milliseconds;
the ratio should grow with the tree.

    python -m bench.taking 200 5000 --rounds 5
"""

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.kit.options import options
from services.git.model import Remote
from tests.kit.gitservice import GitParts, LayeredWorkspace, git_parts
from tests.kit.repos import Repo

SIZES = (200, 5_000, 40_000)


def generate(path: Path, files: int) -> Repo:
    repo = Repo.init(path)
    for number in range(files):
        file = path / f"d{number // 500}" / f"s{number // 25 % 20}" / f"f{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(500).hex().encode())
    repo.commit("all")
    return repo


async def measure(
    parts: GitParts, workspace: LayeredWorkspace, alias: Path, rounds: int
) -> tuple[list[float], list[float]]:
    """Take results; return the seconds when only changes are read, and when every file is read.

    Below `alias` the base is not recognized as a base, so that every file is read.
    """
    fast, whole = [], []
    spec = workspace.take_spec()
    assert spec.tree.layers
    unknown = replace(spec, tree=replace(spec.tree, layers=replace(spec.tree.layers, lowers=(alias,))))
    for number in range(rounds + 1):
        await workspace.agent(f"for n in 0 1 2 3 4; do echo {number} >> d0/s0/f$n.py; echo {number} > d0/new$n; done")
        start = time.perf_counter()
        one = await parts.manager.take_result("repo-1", "fast", spec)
        middle = time.perf_counter()
        other = await parts.manager.take_result("repo-1", "whole", unknown)
        end = time.perf_counter()
        assert one == other
        if number:  # the first round warms the caches
            fast.append(middle - start)
            whole.append(end - middle)
    return fast, whole


async def main() -> None:
    parser = options(__doc__)
    parser.add_argument("files", nargs="*", type=int, default=SIZES, help="how many the trees have, 10 or more each")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    print(f"{'files':>8} {'by changes':>12} {'all files':>12} {'ratio':>7}")
    for files in wanted.files:
        with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
            place = Path(name)
            repo = generate(place / "repo", files)
            async with git_parts(place / "home", place) as parts:
                base = await parts.prepare(Remote("repo-1", str(repo.path)))
                (place / "alias").symlink_to(base.layers[0])
                workspace = await parts.layered(base, mounted=False)
                fast, whole = await measure(parts, workspace, place / "alias", wanted.rounds)
        subprocess.run(["sync"], check=True)  # what this size wrote must not slow down the next
        one, all_ = statistics.median(fast), statistics.median(whole)
        print(f"{files:>8} {one * 1000:>9.0f} ms {all_ * 1000:>9.0f} ms {all_ / one:>6.1f} x")


if __name__ == "__main__":
    asyncio.run(main())
