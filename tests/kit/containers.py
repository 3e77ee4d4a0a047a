"""Container engines for tests: those that work on this machine, and an image of a few of the host's programs."""

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from services.sandbox import container_engines
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxUnavailableError

_PROGRAMS = (
    "sh",
    "bash",
    "cat",
    "cmp",
    "env",
    "head",
    "id",
    "kill",
    "ls",
    "rm",
    "setsid",
    "sleep",
    "stat",
    "tail",
    "touch",
    "mkfifo",
)


def available_engines() -> dict[str, Engine]:
    """Return the engines that work on this machine, by the names of their clients."""
    engines = {}
    for name in container_engines.KNOWN:
        with contextlib.suppress(SandboxUnavailableError):
            engines[name] = container_engines.find(name)
    return engines


@contextlib.contextmanager
def image(engine: Engine, name: str) -> Iterator[str]:
    """Make an image of that name, and remove it after the block."""
    command = [engine.program, "import", "-", name]
    subprocess.run(command, input=_archive(), check=True, capture_output=True, timeout=120)
    try:
        yield name
    finally:
        subprocess.run([engine.program, "rmi", "--force", name], check=False, capture_output=True, timeout=120)


def names(engine: Engine) -> set[str]:
    """Return the names of its containers, including those that have ended."""
    command = [engine.program, "ps", "--all", "--format", "{{.Names}}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split())


def _archive() -> bytes:
    """Pack some programs and their libraries; `python3` is this one, and needs `sys.base_prefix` mounted."""
    python = Path(sys.executable).resolve()
    files = {f"bin/{program}": _path(program) for program in _PROGRAMS}
    for program in [*files.values(), python]:
        output = subprocess.run(["ldd", program], check=False, capture_output=True, text=True, timeout=30).stdout
        files |= {word.lstrip("/"): Path(word) for word in output.split() if word.startswith("/")}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in files.items():
            archive.add(path.resolve(), arcname=name)
        wrapper = f'#!/bin/sh\nexec {python} "$@"\n'.encode()
        entry = tarfile.TarInfo("bin/python3")
        entry.size, entry.mode = len(wrapper), 0o755
        archive.addfile(entry, io.BytesIO(wrapper))
    return packed.getvalue()


def _path(program: str) -> Path:
    path = shutil.which(program)
    if path is None:
        raise RuntimeError(f"the host has no {program}, which test images are made of")
    return Path(path)
