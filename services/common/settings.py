"""Settings from the environment, the data directory, and the tokens in it."""

import contextlib
import ipaddress
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.common.errors import StartError
from services.common.text import is_utf8


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
            return cls(_absolute(Path(os.environ.get("BOATYARD_HOME") or "~/.local/share/boatyard")))
        except ValueError as error:
            raise StartError(f"BOATYARD_HOME {error}") from None

    def directory(self, *names: str) -> Path:
        """Return a directory below the root. It and its parents are made with mode 0700 if they are missing."""
        path = self.root
        _make_private(path)
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

    def cell_token(self) -> str:
        """Return the token between this cell's services, made at first use."""
        return read_or_create_token(self.directory() / self.cell_token_file.name)

    def admin_token(self) -> str:
        """Return the first administrator's token, made at first use."""
        return read_or_create_token(self.directory() / self.admin_token_file.name)


def read_or_create_token(path: Path) -> str:
    """Read the token in `path`, and make it first (256 random bits, mode 0600) if there is none.

    Many processes may do so at once: the file appears whole, by link(2), which fails for all but the first. Raises
    StartError for a file that others can read, or that is empty.
    """
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp gives 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was faster: use its token
                os.link(temporary, path)
        finally:
            Path(temporary).unlink()
    return read_token(path)


def read_token(path: Path) -> str:
    """Read an existing token. Raises StartError when it is missing, empty, or readable by others."""
    try:
        if path.stat().st_mode & 0o077:
            raise StartError(f"{path} can be read by other users, so it is not a secret: chmod 600 {path}")
        token = path.read_text().strip()
    except OSError as error:
        raise StartError(f"cannot read the token in {path}: {error.strerror}") from error
    if not token:
        raise StartError(f"{path} is empty: delete it, and the next start makes a new token")
    return token


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def reachable(address: str) -> str:
    """Return the address at which this machine reaches a server that listens at `address`, which may be a wildcard."""
    host, _, port = address.rpartition(":")
    return f"{_ANY.get(host, host)}:{port}"


_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - it is where others listen


def _public_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError("must be host:port, such as 127.0.0.1:7460")
    return value


def _listen_address(value: str) -> str:
    if not is_loopback(_public_address(value).rpartition(":")[0]):
        raise ValueError("must be a loopback address: tokens would travel in the clear anywhere else")
    return value


def _absolute(path: Path) -> Path:
    whole = path.expanduser().absolute()
    if not is_utf8(os.fsencode(whole)):
        raise ValueError("must be UTF-8, because paths below it are sent as text")
    return whole


ListenAddress = Annotated[str, AfterValidator(_listen_address)]
PublicAddress = Annotated[str, AfterValidator(_public_address)]
"""The address of a service that other machines may reach; the service itself requires TLS there."""


class ServiceSettings(BaseSettings):
    """The settings of every service. A service's own class adds its prefix, its default `listen`, and its own settings.

    class ExampleSettings(ServiceSettings, env_prefix="BOATYARD_EXAMPLE_"):
        listen: ListenAddress = "127.0.0.1:7400"
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    data_directory: Annotated[Path, AfterValidator(_absolute)] = Field(
        default=Path("~/.local/share/boatyard"),
        validate_default=True,
        validation_alias="BOATYARD_HOME",
    )
    listen: ListenAddress
    reflection: bool = True
    """Whether the server answers reflection, so that tools need no .proto files."""

    @property
    def home(self) -> Home:
        """The data directory's layout."""
        return Home(self.data_directory)


_Settings = TypeVar("_Settings", bound=BaseSettings)


def load_settings(kind: type[_Settings]) -> _Settings:
    """Read settings of this kind from the environment. Raises StartError naming every wrong variable."""
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        lines = [
            ": ".join(
                [*([_variable(item["loc"], prefix)] if item["loc"] else []), item["msg"].removeprefix("Value error, ")]
            )
            for item in error.errors()
        ]
        raise StartError("wrong settings:\n  " + "\n  ".join(lines)) from None


def _variable(location: tuple[int | str, ...], prefix: str) -> str:
    name = "_".join(str(part) for part in location)
    return name if name.isupper() else (prefix + name).upper()


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot make the directory {path}: {error.strerror}") from error
