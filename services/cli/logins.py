"""The gateways at which a user has logged in: for each its certificate, which is pinned, and a token.

They are in $XDG_CONFIG_HOME/boatyard/logins (~/.config), a directory for each address, for users without a cell of
their own, and for cells on other machines.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from services.common.rpc.tls import PINNED_NAME, ClientTls


@dataclass(frozen=True, slots=True)
class Login:
    """What is kept of one gateway, host:port."""

    address: str
    directory: Path

    @property
    def tls(self) -> ClientTls:
        """The TLS of calls: only a server with the pinned certificate is called, under whatever name it is reached."""
        return ClientTls(self.directory / "certificate.pem", server_name=PINNED_NAME)

    @property
    def token_file(self) -> Path:
        """The file with the token, which only its owner can read."""
        return self.directory / "token"


class Logins:
    """The logins of one user."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def of_user(cls) -> "Logins":
        """Return the logins of whoever runs this program."""
        return cls(Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "boatyard" / "logins")

    def find(self, address: str) -> Login | None:
        """Return the login at a gateway, if there is one."""
        login = self._login(address)
        return login if login.directory.is_dir() else None

    def last(self) -> Login | None:
        """Return the newest login, if there is any."""
        try:
            directories = [path for path in self._directory.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return None
        newest = max(directories, key=lambda path: path.stat().st_mtime, default=None)
        return None if newest is None else Login(newest.name, newest)

    def keep(self, address: str, certificate: str, token: str) -> Login:
        """Keep a gateway's certificate (PEM) and a token; an earlier login at that address is replaced."""
        new = self._directory / ".new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        (new / "certificate.pem").write_text(certificate)
        (new / "token").touch(mode=0o600)
        (new / "token").write_text(token + "\n")
        self.forget(address)
        login = self._login(address)
        new.rename(login.directory)
        return login

    def forget(self, address: str) -> bool:
        """Remove the login at a gateway; return True when there was one."""
        login = self.find(address)
        if login is not None:
            shutil.rmtree(login.directory)
        return login is not None

    def _login(self, address: str) -> Login:
        return Login(address, self._directory / address.replace("/", "_"))
