"""`python -m services.execution.egress`.

The first line of standard input is a JSON object that says what to allow; the second is the pid of a sandbox's init. On
standard output it writes READY when the sandbox may start, or one line of complaint. Decisions go to the descriptor
that the object names.
"""

import asyncio
import json
import os
import resource
import socket
import sys
from typing import Any

from services.execution.egress import PROXY_PORT
from services.execution.egress.decisions import Decisions
from services.execution.egress.name_server import NameServer
from services.execution.egress.names import MadeUpAddresses
from services.execution.egress.namespace import listen_inside
from services.execution.egress.policy import EgressPolicy
from services.execution.egress.proxy import Proxy
from services.execution.netns import die_with
from services.sandbox import rlimits
from services.sandbox.errors import SandboxUnavailableError

READY = b"READY\n"

_ANSWER = 1
_OPEN_FILES = 2048
_DATA_BYTES = 512 << 20


def main() -> None:
    """Serve until the runner ends this process, or ends itself."""
    request = json.loads(sys.stdin.buffer.readline())
    die_with(request["parent"])
    init = sys.stdin.buffer.readline()
    if not init:  # no sandbox was started after all
        return
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_DATA, _DATA_BYTES)
    os.set_blocking(request["decisions"], False)
    try:
        policy = _policy(request)
        inside = listen_inside(int(init), PROXY_PORT, must_capture=request["everything"])
    except (SandboxUnavailableError, OSError) as error:
        os.write(_ANSWER, str(error).encode() + b"\n")
        return
    asyncio.run(_serve(policy, *inside))


def _policy(request: dict[str, Any]) -> EgressPolicy:
    hosts = None if request["everything"] else request["hosts"]
    return EgressPolicy.of(hosts, request["addresses"], Decisions(request["decisions"]))


async def _serve(policy: EgressPolicy, proxy: socket.socket, names: socket.socket) -> None:
    loop, addresses = asyncio.get_running_loop(), MadeUpAddresses()
    names.setblocking(False)
    await loop.create_datagram_endpoint(lambda: NameServer(policy, addresses), sock=names)
    os.write(_ANSWER, READY)
    await Proxy(policy, addresses).serve(proxy)


def _limit(what: int, most: int) -> None:
    most = rlimits.reachable(what, most)
    resource.setrlimit(what, (most, most))


main()
