"""A small agent without a model: it repairs a program by trying comparisons until the tests pass.

It does what every agent does, only in a simpler way: it reads the task from standard input, looks at the code, runs the
tests, changes something, and runs them again. It knows nothing of Boatyard.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SWAPS = {ast.LtE: "<", ast.Lt: "<=", ast.GtE: ">", ast.Gt: ">="}
SIGNS = {ast.LtE: "<=", ast.Lt: "<", ast.GtE: ">=", ast.Gt: ">"}


def say(text: str) -> None:
    print(text, flush=True)


def run_tests() -> tuple[bool, str]:
    """Run the repository's tests; return whether they pass, and their last line."""
    result = subprocess.run(
        [sys.executable, "-B", "-m", "unittest"], capture_output=True, text=True, check=False, timeout=60
    )
    return result.returncode == 0, result.stderr.strip().splitlines()[-1]


def candidates(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, the change, the whole new source) for each comparison that might be wrong."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare) or type(node.ops[0]) not in SWAPS:
            continue
        line, begin, end = node.lineno - 1, node.left.end_col_offset, node.comparators[0].col_offset
        if node.comparators[0].lineno - 1 != line:
            continue
        old, new = SIGNS[type(node.ops[0])], SWAPS[type(node.ops[0])]
        changed = lines[line][:begin] + f" {new} " + lines[line][end:]
        yield line + 1, f"{old} → {new}", "".join([*lines[:line], changed, *lines[line + 1 :]])


def main() -> int:
    say(f"The task: {sys.stdin.read().strip()}")
    passed, verdict = run_tests()
    say(f"The tests before: {verdict}")
    if passed:
        say("Nothing to do.")
        return 0
    for path in sorted(Path().glob("*.py")):
        if path.name.startswith("test_"):
            continue
        source = path.read_text()
        for line, change, attempt in candidates(source):
            path.write_text(attempt)
            passed, verdict = run_tests()
            say(f"{path}:{line}: {change}: {verdict}")
            if passed:
                say(f"Repaired {path}: line {line} compared the wrong way.")
                return 0
        path.write_text(source)
    say("I found no repair.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
