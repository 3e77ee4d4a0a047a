"""Ids: made here when the caller chose none, and checked here when it did."""

import re
import secrets
import time
from pathlib import Path
from typing import Final

ID_RULE = "1 to 63 of a-z, 0-9 and '-', beginning with a letter or a digit"

NO_REMOTE: Final = "no-remote-"
"""How ids begin under which git services keep the results of jobs without a repository; no repository has one."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as ULID has it, in lower case
_VALID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RANDOM_BITS = 68


def new_id(prefix: str) -> str:
    """Make an id such as `job-01kb2v…`: 26 characters after the prefix, ordered by time.

    130 bits: two of padding, 48 of milliseconds since 1970 as ULID has them, 12 of fractions of that millisecond (so
    that ids made one after another by one process sort in that order), 68 of randomness.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds << 12 | rest * 4096 // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return f"{prefix}-" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def persistent_id(file: Path, prefix: str) -> str:
    """Return the id that a file holds, which is made at first use. One process at a time."""
    if not file.exists():
        temporary = file.with_name(f"{file.name}.new")
        temporary.write_text(new_id(prefix) + "\n")
        temporary.rename(file)
    return file.read_text().strip()


def is_id(text: str) -> bool:
    """True when `text` is a valid id: see ID_RULE, which is the description for a violation."""
    return _VALID.fullmatch(text) is not None
