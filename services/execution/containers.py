"""The containers of runs: made by their runners, and removed by them or by whoever finds that a runner could not.

A run that may have a container has a directory `container` in its own, the container's desk, with the engine's client
in the file `engine`. It is there before the container is, and goes after it: whatever is killed in between, somebody
comes back to it. Standard library only.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from services.execution.files import write_whole
from services.execution.rundir import RunDirectory
from services.sandbox import container, container_engines
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import SandboxSpec

_RECORD = "engine"


class Desk:
    """The container of one run, and the directory through which we speak with it."""

    def __init__(self, run: Path) -> None:
        """`run` is the run's directory."""
        self.path = run / "container"
        """What the container sees."""
        # The place beside the id: two services may be told the same id by two callers.
        digest = hashlib.blake2s(os.fsencode(run.resolve()), digest_size=8).hexdigest()
        self.name = f"boatyard-{digest}"
        """What the engine calls the container."""
        self._execution_id = run.name
        self._engine = run / _RECORD

    def prepare(self, spec: SandboxSpec, *, has_input: bool) -> None:
        """Put all there that the container needs, and nothing of one that was here before."""
        self.clear()
        self.path.mkdir(mode=0o700)
        for name in container.PIPES:
            os.mkfifo(self.path / name, 0o600)
        write_whole(self.path / "begin", container.script(spec, has_input=has_input))

    def make(self, spec: SandboxSpec, engine: Engine) -> None:
        """Have the container made; it does not run yet. Raises SandboxUnavailableError."""
        write_whole(self._engine, os.fsencode(engine.program))
        command = container.creation(spec, engine, self.name, self.path, self._execution_id)
        made = container_engines.ask(engine.program, *command)
        if made.returncode != 0:
            raise container_engines.refusal("the container cannot be made", made.stderr)

    def forget_secrets(self) -> None:
        """Remove what holds the program's environment, which has been read by now."""
        (self.path / "begin").unlink(missing_ok=True)

    def is_used(self) -> bool:
        """Whether there may be a container."""
        return self._engine.exists()

    def remove(self) -> None:
        """End and remove the container, if there is one. Blocks for up to some seconds.

        Raises:
            SandboxUnavailableError: the engine does not do it.
        """
        removed = container_engines.ask(os.fsdecode(self._engine.read_bytes()), "rm", "--force", "--volumes", self.name)
        if removed.returncode != 0 and b"no such container" not in removed.stderr.lower():
            raise container_engines.refusal(f"container {self.name} cannot be removed", removed.stderr)

    def clear(self) -> None:
        """Remove the container, if there may be one, and then the desk. Raises SandboxUnavailableError."""
        if self.is_used():
            self.remove()
            self._engine.unlink()
        shutil.rmtree(self.path, ignore_errors=True)


def sweep(runs: Path) -> Iterator[tuple[str, str]]:
    """Remove what is left of containers of runs that have ended; blocks for 0.2 s for each that there is.

    Whoever concludes a run that was lost removes its container first, and what came to be since then is found here.

    Yields the ids of the executions whose containers could not be removed, and why.
    """
    for record in runs.glob(f"*/{_RECORD}"):
        run = RunDirectory(record.parent)
        if run.result() is not None and run.holder() is None:
            try:
                Desk(run.path).clear()
            except (SandboxUnavailableError, OSError) as error:
                yield run.path.name, str(error)
