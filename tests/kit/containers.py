"""Container engines for tests: those that answer here, and an image of a few of the host's own programs."""

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
    """The engines that answer here, by the names of their clients."""
    found = {}
    for name in container_engines.KNOWN:
        with contextlib.suppress(SandboxUnavailableError):
            found[name] = container_engines.find(name)
    return found


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
    """What its containers are called, ended ones too."""
    command = [engine.program, "ps", "--all", "--format", "{{.Names}}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split())


def _archive() -> bytes:
    """Pack some programs and their libraries; `python3` is ours, and needs `sys.base_prefix` shown to the container."""
    python = Path(sys.executable).resolve()
    files = {f"bin/{program}": _path(program) for program in _PROGRAMS}
    for program in [*files.values(), python]:
        said = subprocess.run(["ldd", program], check=False, capture_output=True, text=True, timeout=30).stdout
        files |= {word.lstrip("/"): Path(word) for word in said.split() if word.startswith("/")}
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
    found = shutil.which(program)
    if found is None:
        raise RuntimeError(f"the host has no {program}, which test images are made of")
    return Path(found)
