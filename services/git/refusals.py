"""What a remote's refusal means: a table of reasons, and of the words by which git, ssh and servers say so.

The first row that fits holds. What fits none is a failure that may pass, so that it is tried again.
"""

import re
from dataclasses import dataclass
from typing import Final

UNREACHABLE: Final = "REMOTE_UNREACHABLE"

SAID_BY_REMOTE: Final = (
    r"(git [a-z-]+ failed with code \d+: )?(remote: |error: remote unpack failed: |\[remote rejected\] )"
)
"""The pattern of how a line begins that the remote has written."""

_TROUBLE: Final = "|".join(
    (
        *("No space left on device", "Disk quota exceeded", "Read-only file system", "Stale (NFS )?file handle"),
        *("(Input/output|I/O) error", "Too many open files", "Cannot allocate memory", "Out of memory"),
        *("Resource temporarily unavailable", r"\.lock': File exists", r"couldn't write '\S+\.lock'"),
        *("unable to create temporary object directory", "unable to migrate objects", "fatal error in commit_refs"),
        *("(?i:internal (server|api) error)", "(?i:temporarily unavailable)", "(?i:try again later)"),
    )
)
"""The pattern of what a server says that would do what is asked, and cannot at present."""

_FOR_HTTPS: Final = (
    "\nThe server wants a token, or another one: create the repository with a token that may read and push."
)
_FOR_RIGHTS: Final = (
    "\nThe server knows whose token or key this is, and does not let them: give them the right there, or the repository"
    " another one (`boatyard repository update ID`)."
)
_FOR_SSH: Final = (
    "\nThe server wants a key: `boatyard repository update ID --ssh-key @FILE` gives the repository one, and"
    " BOATYARD_GIT_SSH_IDENTITY=true lends it those of the account that runs the cell."
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason, the pattern of the words that say so, and what to add to them for people."""

    reason: str
    words: re.Pattern[str]
    hint: str = ""


def _row(reason: str, *words: str, hint: str = "") -> Refusal:
    return Refusal(reason, re.compile("|".join(words)), hint)


_IN_TROUBLE: Final = _row(UNREACHABLE, rf"(?m:^{SAID_BY_REMOTE}.*({_TROUBLE}))")
_TABLE: Final = (
    _IN_TROUBLE,
    _row("REMOTE_MOVED", "has moved to ", r"returned error: 30[12378]\b"),
    _row("REMOTE_ACCESS_DENIED", r"Permission denied \(publickey", hint=_FOR_SSH),
    _row(
        "REMOTE_ACCESS_DENIED",
        *(r"DENIED by \w+", "marked as read only", "not allowed to push", r"Permission to \S+ denied"),
        hint=_FOR_RIGHTS,
    ),
    _row(
        "REMOTE_ACCESS_DENIED",
        *("could not read Username", "Authentication failed", r"returned error: 40[13]\b", "Invalid username or "),
        *("HTTP Basic: Access denied", r"Permission denied \(", "Too many authentication failures"),
        hint=_FOR_HTTPS,
    ),
    _row(
        "REMOTE_NOT_FOUND",
        *("does not appear to be a git repository", "Repository not found", "' not found"),
        *(
            r"returned error: 4(04|10)\b",
            "could not be found or you don't have permission",
            "does not exist or you do not have",
        ),
    ),
    _row(
        "REMOTE_NOT_TRUSTED",
        *("certificate verification failed", "SSL certificate problem", "certificate verify failed"),
        *("SSL: certificate subject name", "no alternative certificate subject name", "Host key verification failed"),
    ),
    _row("REMOTE_UNSUPPORTED", "mismatched algorithms", "is a shallow clone itself", "does not support push options"),
    _row(
        "REMOTE_NOT_GIT",
        *("answers with a page", "bad line length character", "is this a git repository", "invalid server response"),
        *("git-http-push failed", "unexpected content-type"),
    ),
    _row(
        "REMOTE_MALFORMED",
        *(r"error: object [0-9a-f]{40,64}: \w+: ", "fsck error in packed object"),
        *(r"remote: (fatal|error): (unable to (read|parse|unpack) |missing |Could not read [0-9a-f]|bad )",),
        *(r"remote: (fatal|error): (inflate: |object file |loose object |packed object |garbage at end of loose )",),
        *(r"\(stored in \./objects/\S+ is corrupt", "Failed to traverse parents of commit"),
    ),
    _row(
        UNREACHABLE,
        *("[Cc]ould not resolve host", "Failed to connect", "Couldn't connect", "Connection (refused|timed out|reset)"),
        *("Empty reply from server", "transfer closed", r"returned error: (408|429|5\d\d)\b", "hung up unexpectedly"),
        *("in which nothing came or went", "the server is busy", "expected (flush|'|response end)"),
        *("early EOF", "eof before pack header", "unexpected disconnect", "RPC failed", "Connection closed by"),
        *("kex_exchange_identification", "No route to host", "Network is unreachable", "Broken pipe"),
        *("was ended after", "handshake", "Recv failure", "Send failure", "recv error", "SSL_read"),
        *("Timeout, server", "timed out", "unexpected (flush|end|response)", "unable to rewind"),
        *(r"\[remote failure\]", "Could not read from remote"),
    ),
)

# What a server that works says of the one thing that was asked for.
_NOT_OFFERED: Final = re.compile(
    "not our ref|couldn't find remote ref|no such (remote )?ref|unadvertised object|want [0-9a-f]+ not valid"
    "|not a valid ref|invalid refspec"
)


def is_not_offered(error: Exception) -> bool:
    """Return True when a remote that works does not have, or does not give, the ref or commit that was asked for."""
    return _NOT_OFFERED.search(str(error)) is not None


def is_unreachable(error: Exception) -> bool:
    """Return True when a remote, or git about it, says that they have not heard each other to the end."""
    row = refusal(error)
    return row is not None and row.reason == UNREACHABLE


def is_in_trouble(error: Exception) -> bool:
    """Return True when a remote says that something of its own, such as its disk, keeps it from what is asked."""
    return _IN_TROUBLE.words.search(str(error)) is not None


def refusal(error: Exception) -> Refusal | None:
    """Return the row of what a remote, or git about it, says; None when no row fits."""
    return next((row for row in _TABLE if row.words.search(str(error))), None)
