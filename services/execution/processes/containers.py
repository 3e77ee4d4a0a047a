"""The containers of runs: created by their runners, and removed by them, or by the service when a runner could not.

A run that may have a container has a directory `container` in its run directory, and beside it a file `engine` with the
path of the container engine's client. The file is written before the container is created and removed after it:
whatever is killed in between, the container is found again. Standard library only.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from services.common.files import write_whole
from services.execution.rundir.directory import RunDirectory
from services.sandbox import container, container_engines
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import SandboxSpec

_RECORD = "engine"


class ContainerDirectory:
    """The container of one run, and the directory through which the runner talks to it."""

    def __init__(self, run: Path) -> None:
        """`run` is the run's directory."""
        self.path = run / "container"
        """The directory that the container sees."""
        # Of the path, not only the id: two services may be given the same id by two callers.
        digest = hashlib.blake2s(os.fsencode(run.resolve()), digest_size=8).hexdigest()
        self.name = f"boatyard-{digest}"
        """The name of the container in the container engine."""
        self._execution_id = run.name
        self._engine = run / _RECORD

    def prepare(self, spec: SandboxSpec, *, has_input: bool) -> None:
        """Create the directory with all that the container needs, and remove what an earlier container left."""
        self.clear()
        self.path.mkdir(mode=0o700)
        for name in container.PIPES:
            os.mkfifo(self.path / name, 0o600)
        write_whole(self.path / "begin", container.script(spec, has_input=has_input))
        for name, content in container.FILES.items():
            write_whole(self.path / name, content.encode())

    def make(self, spec: SandboxSpec, engine: Engine) -> None:
        """Create the container, but do not start it. Raises SandboxUnavailableError."""
        write_whole(self._engine, os.fsencode(engine.program))
        command = container.creation(spec, engine, self.name, self.path, self._execution_id)
        created = container_engines.ask(engine.program, *command)
        if created.returncode != 0:
            raise container_engines.refusal("the container cannot be made", created.stderr)

    def delete_secrets(self) -> None:
        """Remove the script that holds the program's environment. The container must have read it."""
        (self.path / "begin").unlink(missing_ok=True)

    def is_used(self) -> bool:
        """True when there may be a container."""
        return self._engine.exists()

    def remove(self) -> None:
        """End and remove the container, if there is one. Blocks for up to a few seconds.

        Raises:
            SandboxUnavailableError: the container engine refuses.
        """
        removed = container_engines.ask(os.fsdecode(self._engine.read_bytes()), "rm", "--force", "--volumes", self.name)
        if removed.returncode != 0 and b"no such container" not in removed.stderr.lower():
            raise container_engines.refusal(f"container {self.name} cannot be removed", removed.stderr)

    def clear(self) -> None:
        """Remove the container if there may be one, then the directory. Raises SandboxUnavailableError."""
        if self.is_used():
            self.remove()
            self._engine.unlink()
        shutil.rmtree(self.path, ignore_errors=True)


def remove_orphaned(runs: Path) -> Iterator[tuple[str, str]]:
    """Remove containers that are left of runs that have ended; blocks for 0.2 s for each.

    Whoever concludes a lost run removes its container first; a container that was created after that is found here.

    Yields the ids of the executions whose containers could not be removed, and why.
    """
    for record in runs.glob(f"*/{_RECORD}"):
        run = RunDirectory(record.parent)
        if run.result() is not None and run.holder() is None:
            try:
                ContainerDirectory(run.path).clear()
            except (SandboxUnavailableError, OSError) as error:
                yield run.path.name, str(error)
