"""What an agent wrote, for a terminal: text and colours pass, and nothing that would act on the terminal.

A terminal obeys what it is sent: a sequence sets its title, fills the clipboard, moves the cursor onto a line that is
already there, or has the terminal type an answer.
"""

import codecs
import re
from collections.abc import Callable
from typing import Final

from services.common.display import lines, one_line

_CSI: Final = r"(?:\x1b\[|\x9b)"
_STRING: Final = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])"
"""What begins a text for the terminal itself: OSC (titles, the clipboard, links), DCS, SOS, PM and APC."""
_PARAMETERS: Final = r"[0-?]{0,64}[ -/]{0,8}"
_INSIDE: Final = r"[^\x07\x18\x1a\x1b\n\x80-\x9f]{0,4096}"
"""Such a text. It hides nothing beyond its line; longer ones are shown."""

# At the end of a text, what has not ended yet has been held back, except that it was ended by another beginning.
# No pattern matches a long text from each of many beginnings: time is linear in the output.
_SEQUENCE: Final = re.compile(
    rf"(?P<csi>{_CSI}{_PARAMETERS}[@-~])"
    rf"|(?P<string>{_STRING}{_INSIDE}(?:\x07|\x1b\\|\x9c|(?=[\x18\x1a\x1b\n\x80-\x9f]|\Z)))"
    r"|(?P<escape>\x1b[ -/]{0,8}[0-OQ-WYZ`-~\\])"
)
_COLOUR: Final = re.compile(rf"{_CSI}([0-9:;]*)m")
_BEGUN: Final = rf"{_CSI}{_PARAMETERS}|{_STRING}{_INSIDE}\x1b?|\x1b[ -/]{{0,8}}"
_RETURNS: Final = re.compile(r"\r+\n?")
_NOT_ON_A_SCREEN: Final = re.compile(r"[\x1b\x80-\x9f]")
_MOST_COLOURS: Final = 8

RESET: Final = "\x1b[m"
"""Ends all colours."""


class TerminalFilter:
    """Filters one stream of output, whose pieces may end inside a character or a sequence.

    Each result stands alone: a colour that is in force at its end is reset there, and set again by the next one, so
    that what is written between the two is seen as it is.
    """

    _unfinished = re.compile(rf"(?:{_BEGUN}|(?<!\r)\r+)\Z")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._colours: list[str] = []

    def feed(self, data: bytes) -> str:
        """Return what a terminal may be sent of the next piece, as far as it is known what it means."""
        text = self._rest + self._decoder.decode(data)
        unfinished = self._unfinished.search(text)
        self._rest = ""
        if unfinished:
            text = text[: unfinished.start()]
            self._rest = "\r" if unfinished[0].startswith("\r") else unfinished[0]
        return self._filtered(text)

    def _filtered(self, text: str) -> str:
        before = "".join(self._colours)
        shown = _between_sequences(text, _plain, self._colour)
        return before + shown + (RESET if self._colours else "") if shown else ""

    def _colour(self, sequence: re.Match[str]) -> str:
        colour = _COLOUR.fullmatch(sequence[0])
        if colour is None:
            return ""
        written = f"\x1b[{colour[1]}m"
        if not colour[1].partition(";")[0].strip("0"):
            self._colours.clear()
        if colour[1].strip("0;"):
            self._colours = [*self._colours, written][-_MOST_COLOURS:]
        return written


class ScreenFilter(TerminalFilter):
    """Lets pass what a program needs that fills the screen: all but texts for the terminal itself."""

    _unfinished = re.compile(rf"(?:{_BEGUN})\Z")

    def _filtered(self, text: str) -> str:
        return _between_sequences(text, _of_screen, _screen_sequence)


def _between_sequences(text: str, plain: Callable[[str], str], of_sequence: Callable[[re.Match[str]], str]) -> str:
    """Replace each sequence, and each text between two."""
    pieces, position = [], 0
    for sequence in _SEQUENCE.finditer(text):
        pieces += [plain(text[position : sequence.start()]), of_sequence(sequence)]
        position = sequence.end()
    return "".join([*pieces, plain(text[position:])])


def _plain(text: str) -> str:
    return lines(_RETURNS.sub("\n", text))


def _of_screen(text: str) -> str:
    """Return text for a screen: a sequence that is broken off could become another one on the terminal."""
    return _NOT_ON_A_SCREEN.sub(lambda character: one_line(character[0]), text)


def _screen_sequence(sequence: re.Match[str]) -> str:
    # ESC % changes the character set, in which the bytes of a letter could be a sequence.
    return "" if sequence["string"] or sequence[0].startswith("\x1b%") else sequence[0]
