"""Output for people: lines on standard error, tables on standard output, colour only on terminals."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from services.cli.shapes.values import Shape, line

T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_GAP = 2
_LEAST_WIDTH = 10

STATE_STYLES = {
    "PENDING": "cyan",
    "RUNNING": "blue",
    "AWAITING_APPROVAL": "magenta",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "ACTIVE": "blue",
    "COMPLETED": "green",
    "ERROR": "red",
    "CLEANING": "yellow",
    "APPROVED": "green",
    "REJECTED": "red",
    "EXPIRED": "red",
    "CHANGES_REQUESTED": "yellow",
    "WITHDRAWN": "dim",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


class Screen:
    """Standard output and standard error of this process.

    An agent's output is passed through unchanged. In our own lines control characters are removed, so that neither a
    branch's name nor a message moves the cursor.
    """

    def __init__(self) -> None:
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._shared_terminal = self.out.is_terminal and self.err.is_terminal
        self._in_mid_line = False
        self._speaks = self._thinks = False

    def say(self, text: str, style: str = "dim") -> None:
        """Write a message on standard error."""
        self.line(Text(printable(text), style=style))

    def line(self, text: Text) -> None:
        """Write a line on standard error, on a new line if an agent has left its last one unfinished."""
        self.end_speech()
        if self._in_mid_line and self._shared_terminal:
            self.err.print()
        self._in_mid_line = False
        self.err.print(text)

    def output(self, data: bytes, *, to_stderr: bool = False) -> None:
        """Write an agent's output unchanged."""
        stream = sys.stderr.buffer if to_stderr else sys.stdout.buffer
        stream.write(data)
        stream.flush()
        self._in_mid_line = not data.endswith(b"\n")

    def speech(self, text: str) -> None:
        """Write a piece of a model's text on standard output."""
        if self._thinks:
            self.end_speech()
        self._speaks = True
        self.output(printable(text).encode())

    def thought(self, text: str) -> None:
        """Write a piece of a model's thoughts on standard error."""
        self.err.print(Text(printable(text), style="dim italic"), end="")
        self._thinks = not text.endswith("\n")

    def end_speech(self) -> None:
        """End the line of a model's text or thoughts, if there is one."""
        if self._thinks:
            self.err.print()
        if self._speaks and self._in_mid_line:
            self.output(b"\n")
        self._thinks = self._speaks = False

    def json(self, shape: Shape) -> None:
        """Write an object on standard output, as one line of JSON."""
        sys.stdout.write(line(shape) + "\n")
        sys.stdout.flush()

    def answer(self, shape: Shape, text: str, *, as_json: bool) -> None:
        """Write the result of a command: as JSON on standard output, or as text on standard error."""
        if as_json:
            self.json(shape)
        else:
            self.say(text, style="")

    def listing(
        self,
        items: Iterable[T],
        shape_of: Callable[[T], Shape],
        columns: Sequence[str],
        row_of: Callable[[T], Sequence[str]],
        *,
        as_json: bool,
        cut_last: bool = False,
    ) -> None:
        """Write a list on standard output: as JSON, one object a line, or as a `table`."""
        if as_json:
            for item in items:
                self.json(shape_of(item))
        else:
            self.table(columns, map(row_of, items), cut_last=cut_last)

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Show a status on a terminal while inside."""
        return self.err.status(Text(printable(text), style="dim")) if self.err.is_terminal else nullcontext()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut_last: bool = False) -> None:
        """Write a table on standard output: aligned on a terminal, tab-separated for programs.

        With `cut_last` the last column gives way on a narrow terminal; the others never do: ids are there to be copied.
        """
        lines = [[printable(cell).replace("\t", " ") for cell in row] for row in (columns, *rows)]
        if not self.out.is_terminal:
            for line in lines:
                sys.stdout.write("\t".join(line) + "\n")
            return
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        if cut_last:
            widths[-1] = max(self.out.width - sum(widths[:-1]) - _GAP * (len(widths) - 1), _LEAST_WIDTH)
        for number, line in enumerate(lines):
            text = Text(" " * _GAP).join(
                Text(set_cell_size(cell, width), style=STATE_STYLES.get(cell, "") if number else "bold")
                for cell, width in zip(line, widths, strict=True)
            )
            text.rstrip()
            self.out.print(text)

    def row(self, cells: Sequence[str]) -> None:
        """Write one row of a table that grows: tab-separated for programs, else separated by spaces."""
        shown = [printable(cell).replace("\t", " ") for cell in cells]
        sys.stdout.write(("  ".join(filter(None, shown)) if self.out.is_terminal else "\t".join(shown)) + "\n")
        sys.stdout.flush()


def printable(text: str) -> str:
    """Return text without anything that moves a cursor or cannot be encoded."""
    return _CONTROL.sub("�", text)


def one_line(text: str, length: int = 200) -> str:
    """Return the first line of a text, shortened."""
    first, _, rest = text.strip().partition("\n")
    return first[:length] + "…" if len(first) > length else first + (" …" if rest else "")


def say_unreachable(screen: Screen, cell_ids: Iterable[str]) -> None:
    """Say that a list lacks what some cells have."""
    for cell_id in cell_ids:
        screen.say(f"cell {cell_id} does not answer: this list lacks what it has", style="yellow")
