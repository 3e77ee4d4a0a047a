"""The data directory, and the tokens in it."""

import contextlib
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import StartError
from services.common.files import foreign_owner
from services.common.text import is_utf8

TOKEN_PREFIX = "boatyard_"  # noqa: S105 - not secret: people and scanners recognize a token by it


@dataclass(frozen=True, slots=True)
class Home:
    """The data directory, and the tokens in it. Each service defines its own directory below it.

    Reading a path makes nothing; `directory` does.
    """

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """BOATYARD_HOME, or ~/.local/share/boatyard. Raises StartError if it is not UTF-8."""
        try:
            return cls(absolute(Path(os.environ.get("BOATYARD_HOME") or "~/.local/share/boatyard")))
        except ValueError as error:
            raise StartError(f"BOATYARD_HOME {error}") from None

    def directory(self, *names: str) -> Path:
        """Return a directory below the root, made with mode 0700 if it is missing.

        Raises StartError when one of them cannot be made, is another user's, or may be changed by everybody.
        """
        path = self.root
        _make_private(path)
        check_way(path)
        for name in names:
            path /= name
            _make_private(path)
        return path

    @property
    def admin_token_file(self) -> Path:
        """The first administrator's token, for users of this cell."""
        return self.root / "token"

    @property
    def cell_token_file(self) -> Path:
        """The token that this cell's services send one another."""
        return self.root / "cell-token"

    @property
    def keys_file(self) -> Path:
        """The keys that seal what is secret in the gateway's database."""
        return self.root / "keys"

    def socket(self, service: str) -> str:
        """The address of the socket at which a service of this cell listens."""
        return f"unix:{self.root / 'run' / service}.sock"

    def cell_token(self) -> str:
        """Return the token between this cell's services, made at first use."""
        return read_or_create_token(self.directory() / self.cell_token_file.name)

    def admin_token(self) -> str:
        """Return the first administrator's token, made at first use."""
        return read_or_create_token(self.directory() / self.admin_token_file.name)


def new_token() -> str:
    """Make a token: 256 random bits, behind a prefix by which people and scanners recognize it."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def read_or_create_token(path: Path) -> str:
    """Read the token in `path`, and make it first (256 random bits, mode 0600) if there is none.

    Many processes may do so at once: the file appears whole, by link(2), which fails for all but the first. Raises
    StartError for a file that others can read, that is empty, or that cannot be made.
    """
    if not path.exists():
        try:
            _create_token(path)
        except OSError as error:
            raise StartError(f"cannot make the token in {path}: {error.strerror}") from error
    return read_token(path)


def _create_token(path: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp gives 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_token() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster: use its token
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()


def read_token(path: Path) -> str:
    """Read an existing token. Raises StartError when it is missing, empty, readable by others, or put there by them."""
    try:
        if (stranger := foreign_owner(path)) is not None:
            raise StartError(
                f"{path} belongs to user {stranger}, who knows it: delete it, and the next start makes one"
            )
        if path.stat().st_mode & 0o077:
            raise StartError(f"{path} can be read by other users, so it is not a secret: chmod 600 {path}")
        token = token_from(path.read_text(errors="surrogateescape"), str(path))
    except OSError as error:
        raise StartError(f"cannot read the token in {path}: {error.strerror}") from error
    if not token:
        raise StartError(f"{path} is empty: delete it, and the next start makes a new token")
    return token


def token_from(text: str, origin: str) -> str:
    """Return the token in a text, without the spaces and line breaks around it; an empty text has none.

    Raises StartError when it holds what no token has, and no header of a call could carry.
    """
    token = text.strip()
    if not all("!" <= character <= "~" for character in token):
        raise StartError(f"{origin} holds more than one line, or a character that no token has")
    return token


def absolute(path: Path) -> Path:
    """Return the path from the root. Raises ValueError unless it is UTF-8."""
    whole = path.expanduser().absolute()
    if not is_utf8(os.fsencode(whole)):
        raise ValueError("must be UTF-8, because paths below it are sent as text")
    return whole


def _make_private(path: Path) -> None:
    try:
        for missing in reversed([each for each in path.parents if not each.exists()]):
            missing.mkdir(mode=0o755, exist_ok=True)  # whatever the umask: not everybody may replace what is in it
        path.mkdir(mode=0o700, exist_ok=True)
        owners = {path.lstat().st_uid, path.stat().st_uid}  # of a link, and of what it leads to
    except OSError as error:
        raise StartError(f"cannot make the directory {path}: {error.strerror}") from error
    if strangers := owners - {0, os.geteuid()}:
        raise StartError(
            f"{path} belongs to user {min(strangers)}, who could replace all that is in it: set BOATYARD_HOME to a"
            f" directory of your own, or chown -hR {os.geteuid()} {path} if nobody else has written there"
        )
    if is_everybodys(path):
        raise StartError(
            f"{path} may be changed by every user of the machine: set BOATYARD_HOME to a directory in it, or chmod o-w"
            f" {path} if nobody else has written there"
        )


def check_way(path: Path) -> None:
    """Check that not everybody can put something else in the place of a directory that was made. Raises StartError."""
    for directory in (*path.parents, *path.resolve().parents):  # of a link, and of what it leads to
        is_sticky = directory.stat().st_mode & stat.S_ISVTX  # as /tmp has it: an entry is its owner's
        if is_everybodys(directory) and not is_sticky:
            raise StartError(
                f"{path} may be replaced by every user of the machine: chmod o-w,+t {directory}, or set BOATYARD_HOME"
                " to a directory elsewhere"
            )


def is_everybodys(directory: Path) -> bool:
    """True when every user of the machine may put something there.

    A volume counts as what it is in a container: nobody else is there, and its mode is nobody's to choose.
    """
    return bool(directory.stat().st_mode & stat.S_IWOTH) and not directory.is_mount()
