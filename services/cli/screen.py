"""Output for people: lines on standard error, tables on standard output, colour only on terminals.

All that the command line writes passes here: what is written cannot be more than it is, whoever chose its words.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from services.cli.shapes.values import Shape, line
from services.cli.terminal import RESET, ScreenFilter, TerminalFilter
from services.common import display

T = TypeVar("T")

_CONTINUED = "  ↪ "
"""What is before the rest of a line that is longer than a terminal is wide."""
_LONGEST_STATUS = 60
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


class Line(Text):
    """One line: whatever is put into it stays in it, and is seen."""

    def __init__(self, text: str = "", style: str = "", **options: Any) -> None:  # noqa: ANN401 - rich's own
        super().__init__(display.one_line(text), style, **options)

    @classmethod
    def of(cls, *pieces: str | tuple[str, str]) -> "Line":
        """Make a line of pieces, which may have a style."""
        line = cls()
        for piece in pieces:
            line.append(*((piece,) if isinstance(piece, str) else piece))
        return line

    def append(self, text: "Text | str", style: Any = None) -> "Line":  # noqa: ANN401 - rich's own
        """Add a piece."""
        super().append(display.one_line(text) if isinstance(text, str) else text, style)
        return self


def quoted(text: str, style: str = "") -> list[Line]:
    """Return a text of several lines that somebody else chose, set off from our own lines."""
    return [Line(each, style) for each in display.quoted(text)]


class Screen:
    """Standard output and standard error of this process.

    On a terminal an agent's output is filtered: text and colours pass. With `raw`, or anywhere else, it is unchanged.
    """

    def __init__(self, *, raw: bool = False, fills_screen: bool = False) -> None:
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._shared_terminal = self.out.is_terminal and self.err.is_terminal
        kind = ScreenFilter if fills_screen else TerminalFilter
        self._filters = [None if raw or not stream.isatty() else kind() for stream in (sys.stdout, sys.stderr)]
        self._in_mid_line = False
        self._speaks = self._thinks = False
        self._raw = raw
        self.has_shown_lines = False
        """True when lines of an agent are shown as they are: what they mean need not be shown as well."""

    def shows_lines(self) -> bool:
        """Return True when lines that an agent writes for programs are to be shown as they are."""
        self.has_shown_lines |= self._raw
        return self._raw

    def say(self, text: str, style: str = "dim") -> None:
        """Write a message on standard error, as one line."""
        self.line(Line(text, style))

    def say_all(self, text: str, style: str = "dim") -> None:
        """Write a message of perhaps several lines on standard error: those after the first are quoted."""
        for each in message_lines(text, style):
            self.line(each)

    def line(self, line: Line) -> None:
        """Write a line on standard error, on a new line if an agent has left its last one unfinished."""
        self.end_speech()
        if self._in_mid_line and self._shared_terminal:
            self.err.print()
        self._in_mid_line = False
        _print(self.err, line)

    def show(self, line: Line) -> None:
        """Write a line on standard output."""
        _print(self.out, line)

    def field(self, label: str, text: str) -> None:
        """Write a field on standard output: of a text of several lines, those after the first are quoted."""
        first, *others = message_lines(text)
        for each in (Line(f"{label + ':':<23} ").append(first), *others):
            self.show(each)

    def value(self, text: str) -> None:
        """Write an id or a secret on standard output, as a line that can be read by a program."""
        sys.stdout.write(display.one_line(text) + "\n")
        sys.stdout.flush()

    def output(self, data: bytes, *, to_stderr: bool = False) -> None:
        """Write a piece of an agent's output."""
        stream = sys.stderr if to_stderr else sys.stdout
        if terminal_filter := self._filters[to_stderr]:
            data = terminal_filter.feed(data).encode(stream.encoding, "backslashreplace")
        self._write(stream, data)

    def speech(self, text: str) -> None:
        """Write a piece of a model's text on standard output."""
        if self._thinks:
            self.end_speech()
        self._speaks = True
        self._write(sys.stdout, display.lines(text).encode())

    def thought(self, text: str) -> None:
        """Write a piece of a model's thoughts on standard error."""
        self.err.print(Text(display.lines(text), style="dim italic"), end="")
        self._thinks = not text.endswith("\n")

    def end_speech(self) -> None:
        """End the line of a model's text or thoughts, if there is one."""
        if self._thinks:
            self.err.print()
        if self._speaks and self._in_mid_line:
            self._write(sys.stdout, b"\n")
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
        return (
            self.err.status(Line(first_line(text, _LONGEST_STATUS), "dim")) if self.err.is_terminal else nullcontext()
        )

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut_last: bool = False) -> None:
        """Write a table on standard output: aligned on a terminal, tab-separated for programs.

        With `cut_last` the last column gives way on a narrow terminal; the others never do: ids are there to be copied.
        """
        lines = [[_cell(cell) for cell in row] for row in (columns, *rows)]
        if not self.out.is_terminal:
            for line in lines:
                sys.stdout.write("\t".join(line) + "\n")
            return
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        if cut_last:
            widths[-1] = max(self.out.width - sum(widths[:-1]) - _GAP * (len(widths) - 1), _LEAST_WIDTH)
        for number, line in enumerate(lines):
            shown = Line()
            for cell, width in zip(line, widths, strict=True):
                style = STATE_STYLES.get(cell, "") if number else "bold"
                shown.append(" " * _GAP if shown else "").append(set_cell_size(cell, width), style)
            shown.rstrip()
            self.show(shown)

    def row(self, cells: Sequence[str]) -> None:
        """Write one row of a table that grows: tab-separated for programs, else separated by spaces."""
        shown = [_cell(cell) for cell in cells]
        if self.out.is_terminal:
            self.show(Line("  ".join(filter(None, shown))))
            return
        sys.stdout.write("\t".join(shown) + "\n")
        sys.stdout.flush()

    def _write(self, stream: TextIO, data: bytes) -> None:
        stream.buffer.write(data)
        stream.buffer.flush()
        if data:
            self._in_mid_line = not data.removesuffix(RESET.encode()).endswith(b"\n")


def message_lines(text: str, style: str = "") -> list[Line]:
    """Return a message of perhaps several lines: the first as it is, the others quoted."""
    return [Line(each, style) for each in display.message(text)]


def first_line(text: str, length: int = 200) -> str:
    """Return the first line of a text, shortened."""
    first, _, rest = text.strip().partition("\n")
    return first[:length] + "…" if len(first) > length else first + (" …" if rest else "")


def _cell(text: str) -> str:
    return display.one_line(text.replace("\t", " "))


def _print(console: Console, line: Line) -> None:
    """Write a line. What does not fit on a terminal's line would begin the next one, where our own lines begin."""
    if not console.is_terminal or line.cell_len <= console.width:
        console.print(line)
        return
    first, *others = line.divide(_folds(line.plain, console.width))
    console.print(first)
    for other in others:
        console.print(Text.assemble((_CONTINUED, "dim"), other))


def _folds(text: str, width: int) -> Iterator[int]:
    """Yield where a line is folded: each piece fits, after the mark that all but the first have."""
    used = 0
    for position, character in enumerate(text):
        size = cell_len(character)
        if used + size > width and position:
            yield position
            used = len(_CONTINUED)
        used += size


def say_unreachable(screen: Screen, cell_ids: Iterable[str]) -> None:
    """Say that a list lacks what some cells have."""
    for cell_id in cell_ids:
        screen.say(f"cell {cell_id} does not answer: this list lacks what it has", style="yellow")
