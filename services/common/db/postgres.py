"""How a PostgreSQL is connected to: the arguments of all connections, whatever they are for, are made here.

libpq reads the URL, so it may have what libpq allows: several hosts, sockets, `options`, `sslmode`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote, unquote
from weakref import WeakKeyDictionary

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.bounded import CONNECTING, ON_SERVER
from services.common.errors import StartError

# As SQLAlchemy reads it, and libpq does not: a password may have any character but "@" as it is.
_URL: Final = re.compile(r"postgres(?:ql)?://(?:(?P<user>[^:/@?]*)(?::(?P<password>[^@]*))?@)?(?P<rest>.*)", re.DOTALL)
# A setting in `options`, as the server reads them: `-c name=value`, `-cname=value` or `--name=value`.
_OPTION: Final = re.compile(r"(?:^|(?<!\\)\s)(?:-c\s*|--)([\w-]+)=")
_HOW: Final = (
    "write postgresql://user:password@host:port/name?parameter=value, with libpq's parameters, and in the password %40"
    " for @ and %25 for %"
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A URL, as parameters of libpq. `is_pooled` is true when a pooler gives each transaction a connection."""

    parameters: Mapping[str, str] = field(repr=False)
    is_pooled: bool = False

    @classmethod
    def parse(cls, url: str, *, is_pooled: bool = False) -> Self:
        """Read a URL. Raises StartError, which repeats nothing of it: any part may be of a password."""
        parts = _URL.fullmatch(url)
        if parts is None or any("@" in parts["rest"].partition(end)[0] for end in "/?"):
            raise StartError(f"the database URL cannot be read: {_HOW}")
        user, password = (quote(unquote(parts[name] or ""), safe="") for name in ("user", "password"))
        login = f"{user}:{password}@" if password else f"{user}@" if user else ""
        try:
            parameters = conninfo_to_dict(f"postgresql://{login}{parts['rest']}")
        except psycopg.Error as error:
            problem = str(error).partition(":")[0].partition('"')[0].strip()
            raise StartError(f"the database URL cannot be read ({problem}): {_HOW}") from None
        ports = str(parameters.get("port", "")).split(",")
        if any(port and not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16) for port in ports):
            raise StartError(f"the database URL cannot be read (a port is a number from 1 to 65535): {_HOW}")
        return cls({name: str(value) for name, value in parameters.items()}, is_pooled)

    def arguments(self, name: str = "") -> dict[str, Any]:
        """Return the arguments of a connection for psycopg. `name` is the client's in PostgreSQL's lists."""
        arguments: dict[str, Any] = {**self.parameters, **CONNECTING}
        if name:
            arguments["application_name"] = name
        if "," in self.parameters.get("host", ""):  # one of them may be a copy that takes no writes
            arguments.setdefault("target_session_attrs", "read-write")
        if self.is_pooled:  # a connection's own settings and prepared statements would be somebody else's
            return {**arguments, "prepare_threshold": None}
        # Ours last, so that they hold.
        return {**arguments, "options": f"{self.parameters.get('options', '')} {ON_SERVER}".strip()}

    @property
    def option_names(self) -> set[str]:
        """The settings of PostgreSQL in `options`, which connections are to have."""
        return {name.replace("-", "_").lower() for name in _OPTION.findall(self.parameters.get("options", ""))}

    @property
    def shown(self) -> URL:
        """The URL for messages: without password and parameters."""
        host, port = self.parameters.get("host"), self.parameters.get("port", "")
        is_one = port.isdigit()
        return URL.create(
            "postgresql+psycopg",
            self.parameters.get("user"),
            host=host,
            port=int(port) if is_one else None,
            database=self.parameters.get("dbname") or self.parameters.get("user"),
        )


_LISTENING: WeakKeyDictionary[Dialect, PostgresUrl] = WeakKeyDictionary()
"""Where notices of an engine's database are heard, by the engine's dialect."""


def listen_at(engine: AsyncEngine, url: PostgresUrl) -> None:
    """Hear the notices of an engine's database at this URL."""
    _LISTENING[engine.dialect] = url


def listening_arguments(engine: AsyncEngine) -> dict[str, Any]:
    """Return the arguments of a connection that hears the notices of an engine's database."""
    return _LISTENING[engine.dialect].arguments("boatyard notices")
