"""Secrets as files of a sandbox: in memory, beside the variables, for programs that want a path."""

from collections.abc import Collection
from typing import Final

from services.sandbox.environment import SECRETS

# In a subshell: where a limit does not let them be written, that is said, and the program has its variables.
_WRITE: Final = """
(umask 077; { [ -d "$1" ] || mkdir -p "$1"; } && cd "$1" && shift && while [ "$1" != -- ]; do
  eval "printf '%s\\n' \\"\\$$1\\"" >"$1" || exit; shift; done) ||
  echo "boatyard: secrets could not be written to files" >&2
while [ "$1" != -- ]; do shift; done; shift
exec "$@"
"""


def before(argv: tuple[bytes, ...], names: Collection[str]) -> tuple[bytes, ...]:
    """Return a program that writes the variables `names`, each with a line's end, and becomes that of `argv`."""
    told = (str(SECRETS), *sorted(names), "--")
    return (b"/bin/sh", b"-c", _WRITE.encode(), b"sh", *(part.encode() for part in told), *argv)
