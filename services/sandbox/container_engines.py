"""Finds the container engine, podman or docker, by asking it."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.sandbox.errors import SandboxUnavailableError

KNOWN = ("podman", "docker")
"""The clients of the engines, in the order in which they are tried."""

VARIABLES = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DOCKER_HOST", "DOCKER_CONTEXT")
"""The environment variables by which a client finds its engine and its images."""

_ANSWERS_WITHIN_S = 30
# The first version that can map its user to another number inside (`--userns keep-id:uid=`).
_OLDEST_ROOTLESS = (4, 3)
_ENDS_WITHIN_S = 120
_MEND = "See what the engine says of itself (`podman info`, `docker info`)"
_INSTALL = "Install podman (`apt-get install podman`) or docker; docker's daemon must run, and let this user in"


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that answers."""

    program: str
    """The path of its client."""
    is_podman: bool
    is_rootless: bool
    """Whether it runs as an ordinary user: ours."""
    has_limits: bool
    """Whether it can limit memory and processes here."""
    has_filter: bool
    """Whether it filters system calls."""
    version: str

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{'podman' if self.is_podman else 'docker'} {self.version}"

    @property
    def can_be_entered(self) -> bool:
        """True when we can enter the network of its containers: it runs as the same user, or we as root."""
        return self.is_rootless or os.geteuid() == 0

    @property
    def weaknesses(self) -> list[str]:
        """What its containers lack, in words for people."""
        found = []
        if not self.has_filter:
            found.append("it filters no system calls (seccomp)")
        if not self.has_limits:
            found.append("it bounds neither memory nor processes here, so both are looked at a few times a second")
        return found


def find(only: str | None = None) -> Engine:
    """Return the first engine that answers, or the one whose client is called `only`; blocks for 50 ms to seconds.

    Raises:
        SandboxUnavailableError: none answers; the message has each one's error.
    """
    complaints = []
    for name in KNOWN if only is None else (only,):
        program = shutil.which(name)
        if program is None:
            complaints.append(f"{name} is not installed")
            continue
        try:
            return _described(program, _ask(program))
        except _NoAnswerError as error:
            complaints.append(f"{name}: {error}")
    raise SandboxUnavailableError(f"no container engine can be used here ({'; '.join(complaints)})", _INSTALL)


def has_image(engine: Engine, image: str) -> bool:
    """True when the engine has an image; blocks for some 50 ms. Raises SandboxUnavailableError."""
    inspected = ask(engine.program, "image", "inspect", "--format", "{{.Id}}", image)
    if inspected.returncode != 0 and b"no space left" in inspected.stderr.lower():  # it cannot tell
        raise refusal("the container engine cannot look for an image", inspected.stderr)
    return inspected.returncode == 0


def run_nothing(engine: Engine, image: str) -> None:
    """Start a container that does nothing, as restricted as an agent's. Raises SandboxUnavailableError."""
    options = ("--rm", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL")
    command = ("--security-opt", "no-new-privileges", "--entrypoint", "/bin/sh", image, "-c", ":")
    tried = ask(engine.program, "run", *options, *command)
    if tried.returncode != 0:
        raise refusal("the container engine answers, and starts no container", tried.stderr)


def missing_image(engine: Engine, image: str) -> SandboxUnavailableError:
    """Return the error for a missing image, with how to get it."""
    return SandboxUnavailableError(
        f"there is no image {image!r} on this machine",
        f"Run `{Path(engine.program).name} pull {image}` as the user who runs Boatyard,"
        " or set BOATYARD_EXECUTION_CONTAINER_PULL=missing",
    )


def ask(program: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run an engine's client to its end. Raises SandboxUnavailableError when that takes two minutes."""
    try:
        return subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_ENDS_WITHIN_S,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise SandboxUnavailableError(
            f"`{program} {arguments[0]}` did not end within {_ENDS_WITHIN_S} s", _MEND
        ) from None


def refusal(problem: str, complaint: bytes) -> SandboxUnavailableError:
    """Return the error for a refusal, with the engine's message."""
    return SandboxUnavailableError(
        f"{problem}: {complaint.decode(errors='replace').strip() or 'no reason given'}", _MEND
    )


class _NoAnswerError(Exception):
    """An engine cannot be used; the message says why."""


def _ask(program: str) -> dict[str, Any]:
    command = [program, "info", "--format", "{{json .}}"]
    try:
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWERS_WITHIN_S
        )
        described: dict[str, Any] = json.loads(said.stdout)
    except subprocess.TimeoutExpired:
        raise _NoAnswerError(f"it does not answer within {_ANSWERS_WITHIN_S} s") from None
    except OSError as error:
        raise _NoAnswerError(str(error)) from None
    except ValueError:
        described = {}
    if said.returncode != 0 or not described or described.get("ServerErrors"):
        complaint = "; ".join(described.get("ServerErrors") or ()) or said.stderr.decode(errors="replace").strip()
        raise _NoAnswerError(complaint or f"`{program} info` ended with exit code {said.returncode}")
    return described


def _described(program: str, said: dict[str, Any]) -> Engine:
    """Read an engine's description of itself: podman may be installed as `docker` too."""
    if "host" not in said:
        options = " ".join(said.get("SecurityOptions") or ())
        return Engine(
            program,
            is_podman=False,
            is_rootless="name=rootless" in options,
            has_limits=bool(said.get("MemoryLimit") and said.get("PidsLimit")),
            has_filter="name=seccomp" in options,
            version=said.get("ServerVersion", ""),
        )
    host, version = said["host"], said.get("version", {}).get("Version", "")
    if host.get("serviceIsRemote"):
        raise _NoAnswerError("it is on another machine, and agents' workspaces are on this one")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    is_rootless = bool(host["security"]["rootless"])
    if is_rootless and (numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST_ROOTLESS):
        raise _NoAnswerError(f"version {version} is too old to be used without root, 4.3 is not")
    # Without root only version 2 of control groups can be delegated.
    controllers = (
        set(host.get("cgroupControllers") or ()) if not is_rootless or host["cgroupVersion"] == "v2" else set()
    )
    return Engine(
        program,
        is_podman=True,
        is_rootless=is_rootless,
        has_limits={"memory", "pids"} <= controllers,
        has_filter=bool(host["security"]["seccompEnabled"]),
        version=version,
    )
