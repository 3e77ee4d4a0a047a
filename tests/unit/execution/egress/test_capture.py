"""What the kernel does in a network namespace after `capture`, for its owner: root or not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import services
from services.execution.egress.probe import probe

_ROOT = Path(services.__file__).parent.parent
_NOBODY = 65534

# In namespaces of its own, with a loopback.
_CAPTURED = """
import ctypes, fcntl, socket, struct
from services.execution.egress.capture import capture
assert ctypes.CDLL(None).unshare(0x50000000) == 0
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sH14x", b"lo", 0x41))
proxy = socket.create_server(("127.0.0.1", 3128))
proxy.setsockopt(0, 19, 1)
capture(3128)
for place in ("192.0.2.1", 80), ("8.8.8.8", 65535), ("127.0.0.1", 3128):
    with socket.create_connection(place, 30):
        print(*proxy.accept()[0].getsockname())
try:
    socket.create_connection(("127.0.0.1", 80), 30)
except ConnectionRefusedError:
    print("refused")
"""


def _run(python: str, code: str, user: int | None = None) -> str:
    environment = {"PYTHONPATH": str(_ROOT)}
    command = [python, "-c", code]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", *command]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def test_every_connection_but_those_of_the_loopback_arrives_with_the_address_that_it_is_for() -> None:
    wanted = ["192.0.2.1 80", "8.8.8.8 65535", "127.0.0.1 3128", "refused"]
    assert _run(sys.executable, _CAPTURED).splitlines() == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_is_not_needed() -> None:
    python = shutil.which("python3", path="/usr/bin")  # root's own may not be everybody's
    if python is None:
        pytest.skip("there is no python3 that everybody may start")
    assert _run(python, _CAPTURED, _NOBODY) == _run(sys.executable, _CAPTURED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_where_it_does_not_work_the_complaint_says_what_to_load() -> None:
    """Here nobody owns the network namespace; a kernel without the modules refuses in the same place."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("there is no python3 that everybody may start")
    code = "from services.execution.egress.capture import complaint; print(complaint(3128))"
    assert "modprobe nft_tproxy" in _run(python, code, _NOBODY)


def test_the_probe_finds_it_out() -> None:
    assert probe() == ""
