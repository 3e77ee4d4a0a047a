"""Services that cannot start say why in one message, which can be mended, and with an exit code that says so."""

import asyncio
import os
import socket
import sys
from pathlib import Path

from services.common.lock import FileLock
from services.common.program import EXIT_CANNOT_START


async def start(service: str, home: Path, listen: str) -> tuple[int | None, str]:
    """Run a service to its end; return its exit code, and the last line that it says."""
    environment = {
        **os.environ,
        "BOATYARD_HOME": str(home),
        "BOATYARD_LOG_LEVEL": "ERROR",
        f"BOATYARD_{service.upper()}_LISTEN": listen,
        "BOATYARD_COORDINATOR_UPSTREAM": "127.0.0.1:1",
        "BOATYARD_TOKEN": "a-token-that-nobody-is-asked-for",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode().splitlines()[-1]


async def test_a_taken_port_is_told_in_a_line(tmp_path: Path) -> None:
    service = "git"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await start(service, tmp_path / "home", listen) == (
            EXIT_CANNOT_START,
            f"boatyard {service}: cannot listen on {listen}: is another service running there?",
        )


async def test_a_second_one_of_a_directory_is_told_whose_it_is(tmp_path: Path) -> None:
    service = "execution"
    (tmp_path / service).mkdir(mode=0o700)
    lock = FileLock(tmp_path / service / "lock")
    try:
        code, said = await start(service, tmp_path, "127.0.0.1:0")
    finally:
        lock.release()
    assert code == EXIT_CANNOT_START
    assert said.startswith(f"boatyard {service}: process {os.getpid()} already ")
    assert said.endswith(": end it, or name another data directory by BOATYARD_HOME")
