"""Finds out whether this machine's network namespaces can bring connections to us, by using one."""

import subprocess
import sys
from pathlib import Path

import services
from services.execution.egress import PROXY_PORT
from services.sandbox import bubblewrap
from services.sandbox.errors import SandboxUnavailableError

_PROGRAM = f"import services.execution.egress.capture as it; print(it.complaint({PROXY_PORT}), end='')"
_TIMEOUT_S = 20
_SANDBOX = ("--unshare-user", "--unshare-net", "--cap-add", "CAP_NET_ADMIN", "--ro-bind", "/", "/")


def probe() -> str:
    """Return why programs that know no proxy reach nothing, or an empty string. Blocks for some 50 ms."""
    environment = {"PYTHONPATH": str(Path(services.__file__).parent.parent)}
    try:
        probed = subprocess.run(
            [bubblewrap.program(), *_SANDBOX, "--", sys.executable, "-P", "-S", "-c", _PROGRAM],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except SandboxUnavailableError as error:
        return str(error)
    if probed.returncode != 0:
        return probed.stderr.decode(errors="replace").strip() or "bubblewrap gave no reason"
    return probed.stdout.decode()
