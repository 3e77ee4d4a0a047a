"""Jobs on repositories that people have, against plain git: from HEAD, from a tag of the middle, from an early commit.

The agent adds, edits, deletes, renames, links and makes executable some files of each. The tree of the result that is
pushed must be what `git add --all` and `git write-tree` make of the same edits in a working tree of plain git. Each
repository is copied before; without any, one is generated. With a difference it exits with 1.

    python -m bench.real ~/src/linux.git ~/src/werkzeug
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.kit.options import options
from tests.kit.cell import Cell, running_cell
from tests.kit.repos import Repo

# `pick N` is the path of a file in the middle of the tree, another one for each N.
EDITS = r"""
set -e
git ls-files -s | sed -n 's/^100644 [0-9a-f]* 0\t\([A-Za-z0-9_./-]*\)$/\1/p' | LC_ALL=C sort > /tmp/paths.$$
many=$(wc -l < /tmp/paths.$$)
pick() { sed -n "$(( (many * $1 / 7) % many + 1 ))p" /tmp/paths.$$; }
if [ "$many" -gt 7 ]; then
  echo edited >> "$(pick 1)"
  rm "$(pick 2)"
  chmod +x "$(pick 3)"
  mv "$(pick 4)" renamed
  name=$(pick 5); rm "$name"; ln -s "$(pick 6)" "$name"
fi
rm /tmp/paths.$$
mkdir -p made/by/an/agent
printf 'text\r\nwith both\n' > made/by/an/agent/text.txt
head -c 3000 /dev/zero > 'made/zeros and a space'
printf '#!/bin/sh\n' > made/run; chmod +x made/run
ln -s ../nowhere made/link
printf 'x' > "made/$(printf 'caf\303\251')"
"""


def starts(remote: Repo) -> Iterator[tuple[str, str]]:
    """Return where jobs begin: (what it is, a revision)."""
    yield "HEAD", "HEAD"
    tags = remote.git("tag", "--sort=creatordate").split()
    if tags:
        yield "tag", tags[len(tags) // 2]
    history = remote.git("rev-list", "--first-parent", "HEAD").split()
    yield "early", history[len(history) * 9 // 10]


def expected_tree(remote: Repo, revision: str, place: Path) -> str:
    """Return the tree that plain git makes of the edits."""
    remote.git("worktree", "add", "--quiet", "--detach", place, revision)
    subprocess.run(["sh", "-c", EDITS], cwd=place, check=True)
    tree = Repo(place)
    tree.git("add", "--all")
    made = tree.git("write-tree")
    remote.git("worktree", "remove", "--force", place)
    return made


def run_one(cell: Cell, remote: Repo, revision: str, expected: str) -> tuple[str, str, float]:
    """Run one job; return how it ended, what is left out of its result, and how long it took."""
    began = time.monotonic()
    *_, result = cell.lines(
        *("run", "--repo", remote.path, "--ref", revision, "--command", EDITS, "Edit."), code=None, timeout=1800
    )
    took = time.monotonic() - began
    if result.get("state") != "SUCCEEDED":
        return f"{result.get('state')} {result.get('reason')}", "", took
    same = remote.git("rev-parse", f"{result['branch']}^{{tree}}") == expected
    caveats = sorted({each["kind"] for each in result.get("caveats", [])})
    return "the same" if same else f"DIFFERS: {result['commit']}", ",".join(caveats), took


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("repositories", nargs="*", type=Path, help="git directories, or working copies with one")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boatyard-bench-") as name:
        place = Path(name)
        sources = wanted.repositories or [Repo.sample(place / "generated").path]
        print(f"{'repository':<32} {'refs':>6} {'files':>6}  {'from':<6} {'tree':<12} {'seconds':>8}  left out")
        with running_cell(place / "cell", BOATYARD_GIT_FILE_ROOTS=str(place)) as cell:
            wrong = sum(compare(cell, source, place / "work") for source in sources)
    print(f"{wrong} differ or failed" if wanted.repositories else "")
    return 1 if wrong else 0


def compare(cell: Cell, source: Path, place: Path) -> int:
    """Run the jobs on one repository, and print a line for each; return how many are wrong."""
    place.mkdir(exist_ok=True)
    path = place / f"{source.parent.name if source.name in {'repo', '.git'} else source.name}.git"
    subprocess.run(["git", "clone", "--quiet", "--mirror", source, path], check=True)
    remote = Repo(path)
    remote.git("config", "--unset", "remote.origin.mirror")
    refs = len(remote.git("for-each-ref", "--format=x").splitlines())
    wrong = 0
    for what, revision in starts(remote):
        files = len(remote.git("ls-tree", "-r", "--name-only", revision).splitlines())
        tree = expected_tree(remote, revision, place / "tree")
        ended, left_out, took = run_one(cell, remote, revision, tree)
        wrong += ended != "the same"
        print(f"{path.stem:<32} {refs:>6} {files:>6}  {what:<6} {ended:<12} {took:>8.1f}  {left_out}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
