"""Finds out whether the sandbox works on this machine, by using it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from services.sandbox import environment
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.launch import prepare
from services.sandbox.spec import Mount, MountAccess, SandboxSpec

_SWITCHES = (
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "this kernel keeps user namespaces from ordinary users",
        "Run `sysctl -w kernel.unprivileged_userns_clone=1` as root",
    ),
    (
        "user/max_user_namespaces",
        "0",
        "this kernel allows no user namespaces",
        "Run `sysctl -w user.max_user_namespaces=15000` as root",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor keeps user namespaces from programs without a profile",
        "Run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, or give bwrap an AppArmor profile",
    ),
)
_IN_CONTAINER = (
    "Inside a container, start it as another user than root, with"
    " `--security-opt seccomp=unconfined --security-opt systempaths=unconfined` (Docker, Podman), or `seccompProfile:"
    " {type: Unconfined}`, `procMount: Unmasked` and `hostUsers: false` (Kubernetes); or run the agents with sandbox"
    " tier `none`, which isolates nothing"
)
_SYSCTL = Path("/proc/sys")
_TIMEOUT_S = 20


def probe() -> None:
    """Start a sandbox that does nothing; blocks for some 10 ms.

    Raises:
        SandboxUnavailableError: it does not work here; the message says what is wrong and how to fix it.
    """
    if sys.platform != "linux":
        raise SandboxUnavailableError("The sandbox needs Linux", "Run Boatyard in a Linux machine or container")
    _try(SandboxSpec((b"true",), Path("/"), environment=environment.base()))


def probe_as(uid: int) -> None:
    """Start a sandbox that has a uid of its own on the host, and writes a file. Needs root. Raises as `probe`."""
    with tempfile.TemporaryDirectory(prefix="boatyard-probe-") as name:
        place, inside = Path(name), Path("/workspace")
        try:
            os.chown(place, uid, uid)
        except OSError as error:
            raise SandboxUnavailableError(f"Nothing can belong to uid {uid}: {error}", _IN_CONTAINER) from error
        mounts = (Mount(place, inside, MountAccess.READ_WRITE),)
        _try(SandboxSpec((b"touch", b"made"), inside, mounts, environment.base()))


def _try(spec: SandboxSpec) -> None:
    with prepare(spec) as launch:
        result = subprocess.run(
            launch.argv,
            env=launch.env,
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    if result.returncode != 0:
        raise diagnose(result.stderr.decode(errors="replace").strip(), _SYSCTL)


def diagnose(complaint: str, sysctl: Path) -> SandboxUnavailableError:
    """Return why bubblewrap failed with `complaint`, by the kernel's settings under `sysctl`."""
    for name, bad, problem, mend in _SWITCHES:
        switch = sysctl / name
        if switch.exists() and switch.read_text().strip() == bad:
            return SandboxUnavailableError(f"The sandbox cannot start: {problem} ({complaint})", mend)
    return SandboxUnavailableError(
        f"The sandbox cannot start: {complaint or 'bubblewrap gave no reason'}", _IN_CONTAINER
    )
