"""Layers are held exactly as long as the sandbox lives that has them, whoever is killed; nothing leads out by it."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.sandbox import aio, environment, layer_locks
from services.sandbox.errors import HeldError, SandboxUnavailableError
from services.sandbox.spec import Mount, Overlay, SandboxSpec
from tests.kit import processes

TARGET = Path("/layered")


@pytest.fixture
def layers(tmp_path: Path) -> Overlay:
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for path in (lower, upper, work):
        path.mkdir()
    (lower / "file").write_text("from below")
    return Overlay((lower,), upper, work, TARGET, holder="execution e1")


def shell(line: str, *mounts: Mount | Overlay) -> SandboxSpec:
    return SandboxSpec((b"sh", b"-c", line.encode()), TARGET, mounts, environment.base())


@asynccontextmanager
async def running(line: str, *mounts: Mount | Overlay) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a line that says when it is there."""
    async with aio.start(shell(f"echo there; {line}", *mounts)) as process:
        assert process.stdout
        assert await process.stdout.readline() == b"there\n"
        yield process


async def test_only_one_sandbox_has_the_layers_and_the_other_hears_which(layers: Overlay) -> None:
    assert layer_locks.held_by(layers.upper) is None
    async with running("sleep 60", layers):
        told = layer_locks.held_by(layers.upper)
        with pytest.raises(HeldError) as raised:
            await asyncio.to_thread(layer_locks.acquire, layers.upper, "git", shared=False, patience_s=0.1)
    assert told
    assert told.startswith("execution e1 (started by process ")
    assert "execution e1" in str(raised.value)
    assert layer_locks.held_by(layers.upper) is None
    assert (await aio.run(shell("cat file", layers))).stdout == b"from below"


def test_layers_that_are_shared_are_held(layers: Overlay) -> None:
    assert layers.upper
    descriptor = layer_locks.acquire(layers.upper, "execution e2", shared=True)
    try:
        told = layer_locks.held_by(layers.upper)
    finally:
        os.close(descriptor)
    assert told
    assert told.startswith("execution e2 (started by process ")
    assert layer_locks.held_by(layers.upper) is None


async def test_a_sandbox_waits_for_one_that_is_ending(layers: Overlay) -> None:
    async with running("sleep 60", layers) as first:
        second = asyncio.create_task(aio.run(shell("cat file", layers)))
        await asyncio.sleep(0)
        first.kill()
        assert (await second).stdout == b"from below"


RUNNER = """
import signal, subprocess, sys
from pathlib import Path
from services.sandbox import environment
from services.sandbox.launch import prepare
from services.sandbox.spec import Overlay, SandboxSpec

lower, upper, work = map(Path, sys.argv[1:4])
layers = Overlay((lower,), upper, work, Path("/layered"), holder="execution e1")
line = b"(setsid sh -c 'while :; do echo x >> alive; done' &); echo there; sleep 60"
spec = SandboxSpec((b"sh", b"-c", line), Path("/layered"), (layers,), environment.base() | {sys.argv[4]: b"1"})
with prepare(spec) as launch:
    subprocess.Popen(launch.argv, env=launch.env, cwd=launch.cwd, pass_fds=launch.pass_fds)
signal.pause()
"""


async def test_the_lock_outlives_a_killed_runner_and_not_its_sandbox(layers: Overlay) -> None:
    assert layers.upper
    mark = f"MARK_{uuid.uuid4().hex}"
    paths = [str(path) for path in (*layers.lowers, layers.upper, layers.work)]
    for _ in range(5):
        runner = subprocess.Popen([sys.executable, "-c", RUNNER, *paths, mark], stdout=subprocess.PIPE)
        assert runner.stdout
        assert await asyncio.to_thread(runner.stdout.readline) == b"there\n"
        with pytest.raises(HeldError):
            layer_locks.acquire(layers.upper, "git", shared=False, patience_s=0)
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        runner.stdout.close()
        descriptor = await asyncio.to_thread(layer_locks.acquire, layers.upper, "git", shared=False, patience_s=20)
        try:
            assert not processes.with_environment({mark: "1"})
        finally:
            os.close(descriptor)


async def test_the_lock_is_no_way_out(layers: Overlay) -> None:
    """The namespace's init has the descriptor; nobody inside may look into the init."""
    look = (
        "for fd in /proc/[0-9]*/fd/*; do readlink $fd; done > fds;"
        ' python3 -c \'import os; print(os.listdir("/proc/1"), sorted(os.listdir("/proc/self/fd")))\''
    )
    answer = await aio.run(shell(look, layers))

    assert layers.upper
    assert str(layers.upper) not in (layers.upper / "fds").read_text()
    assert answer.stdout == b"[] ['0', '1', '2', '3']\n"  # 3 is that of the listing itself


async def test_layers_without_an_upper_are_read_only(tmp_path: Path, layers: Overlay) -> None:
    higher = tmp_path / "higher"
    higher.mkdir()
    (higher / "more").write_text("from above")
    for lowers in (layers.lowers, (higher, *layers.lowers)):
        stack = Overlay(lowers, None, None, TARGET)
        answer = await aio.run(shell("cat file; touch new || echo refused", stack))
        assert answer.stdout == b"from belowrefused\n"
    both = await aio.run(shell("cat more", Overlay((higher, *layers.lowers), None, None, TARGET)))
    assert both.stdout == b"from above"


async def test_layers_that_should_be_mounted_and_are_not_are_no_empty_tree(tmp_path: Path, layers: Overlay) -> None:
    place = tmp_path / "place"
    place.mkdir()
    mounted = Overlay(layers.lowers, layers.upper, layers.work, TARGET, mounted=place)
    with pytest.raises(SandboxUnavailableError, match="not mounted"):
        await aio.run(shell("true", mounted))


async def test_a_writable_stack_is_one_a_sandbox(layers: Overlay) -> None:
    with pytest.raises(ValueError, match="one writable stack"):
        await aio.run(shell("true", layers, layers))
