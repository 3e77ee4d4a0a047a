"""`python -m services.execution.egress`.

The first line of standard input is a JSON object that says what to allow; the second is the pid of a sandbox's init. On
standard output it writes READY when the sandbox may start, or one line of complaint, and after READY each decision.
"""

import asyncio
import json
import os
import socket
import sys

from services.execution.egress import PROXY_PORT
from services.execution.egress.decisions import Decisions
from services.execution.egress.name_server import NameServer
from services.execution.egress.namespace import die_with, listen_inside
from services.execution.egress.policy import EgressPolicy
from services.execution.egress.proxy import Proxy
from services.sandbox.errors import SandboxUnavailableError

READY = b"READY\n"

_DECISIONS = 1
_NAMES_PORT = 53
_HEAD_BYTES = 64 * 1024


def main() -> None:
    """Serve until the runner ends this process, or ends itself."""
    request = json.loads(sys.stdin.buffer.readline())
    die_with(request["parent"])
    init = sys.stdin.buffer.readline()
    if not init:  # no sandbox was started after all
        return
    os.set_blocking(_DECISIONS, False)
    policy = EgressPolicy.of(request["hosts"], request["addresses"], Decisions(_DECISIONS))
    try:
        proxy, names = listen_inside(int(init), ((socket.SOCK_STREAM, PROXY_PORT), (socket.SOCK_DGRAM, _NAMES_PORT)))
    except SandboxUnavailableError as error:
        os.write(_DECISIONS, str(error).encode() + b"\n")
        return
    asyncio.run(_serve(policy, proxy, names))


async def _serve(policy: EgressPolicy, proxy: socket.socket, names: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    names.setblocking(False)
    await loop.create_datagram_endpoint(lambda: NameServer(policy), sock=names)
    server = await asyncio.start_server(Proxy(policy).serve, sock=proxy, limit=_HEAD_BYTES)
    os.write(_DECISIONS, READY)
    await server.serve_forever()


main()
