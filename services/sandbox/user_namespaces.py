"""User namespaces made ahead, by a program that is in one for a moment: a process with threads cannot enter one.

All functions block for some 3 ms, and need root.
"""

import os
import subprocess
import threading
import time
from collections import OrderedDict

from services.sandbox.environment import host_program
from services.sandbox.errors import SandboxUnavailableError

_INSIDE_UID = 1000
_NOBODY = 65534
# The kernel counts the namespaces below one too: with none allowed, nobody inside makes another.
_SCRIPT = "echo && read -r _ && echo 0 >/proc/sys/user/max_user_namespaces && echo && read -r _"
_MEND = "apt-get install util-linux (2.36 or newer), and let this root have CAP_SYS_ADMIN, CAP_SETUID and CAP_SETFCAP"
_KEPT = 64
_KEPT_AT_LEAST_S = 60.0
"""How long a namespace is kept: a process that was just started has yet to open it."""

_of_agents: OrderedDict[int, tuple[int, float]] = OrderedDict()
_lock = threading.Lock()


def of_agent(uid: int) -> int:
    """Return a descriptor, which stays ours, of a namespace for the agents of `uid`, who are uid 1000 inside.

    Whoever makes a namespace is who the kernel counts for it, so `uid` does. Root is nobody inside: a process with
    rights in the namespace passes root's directories by that.

    Raises SandboxUnavailableError.
    """
    with _lock:
        namespace, _ = _of_agents.pop(uid, (-1, 0.0))
        if namespace < 0:
            namespace = make(f"{_INSIDE_UID} {uid} 1\n{_NOBODY} 0 1\n", by=uid)
        _of_agents[uid] = (namespace, time.monotonic())
        _forget_oldest()
        return namespace


def make(mapping: str, *, by: int | None = None) -> int:
    """Return a descriptor of a new namespace; `mapping` is that of its uids, and of its gids: see user_namespaces(7).

    `by` is the uid that makes it, root by default. Raises SandboxUnavailableError.
    """
    unshare, setpriv = map(host_program, ("unshare", "setpriv"))
    if unshare is None or setpriv is None:
        raise SandboxUnavailableError("There is no unshare or no setpriv", _MEND)
    become = [] if by is None else [setpriv, f"--reuid={by}", f"--regid={by}", "--clear-groups", "--"]
    argv = [*become, unshare, "--user", "--keep-caps", "--", "/bin/sh", "-c", _SCRIPT]
    with subprocess.Popen(
        argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as helper:
        try:
            return _mapped(helper, mapping)
        except OSError as error:
            raise SandboxUnavailableError(f"No user namespace can be made: {error}", _MEND) from error
        finally:
            helper.kill()


def _mapped(helper: "subprocess.Popen[bytes]", mapping: str) -> int:
    _expect_line(helper)
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"/proc/{helper.pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, mapping.encode())
        finally:
            os.close(fd)
    if helper.stdin is not None:
        helper.stdin.write(b"\n")
    _expect_line(helper)
    return os.open(f"/proc/{helper.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def _expect_line(helper: "subprocess.Popen[bytes]") -> None:
    if helper.stdout is not None and helper.stderr is not None and helper.stdout.read(1) != b"\n":
        raise OSError(helper.stderr.read(1000).decode(errors="replace").strip() or "its maker ended")


def _forget_oldest() -> None:
    while len(_of_agents) > _KEPT:
        uid, (namespace, used) = next(iter(_of_agents.items()))
        if time.monotonic() - used < _KEPT_AT_LEAST_S:
            return
        del _of_agents[uid]
        os.close(namespace)
