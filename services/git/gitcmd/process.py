"""Runs git on this host, on repositories that no agent can write: mirrors, result stores, base trees being built."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from services.git.gitcmd.certificates import bundle
from services.git.gitcmd.commands import Command, git_argv
from services.git.gitcmd.environment import build_environment, ssh_variables
from services.git.gitcmd.errors import GitFailed, OutputTooLarge, failure_within
from services.git.gitcmd.messages import Messages
from services.git.gitcmd.patience import Patience
from services.sandbox import rlimits
from services.sandbox.spec import Limits

_CHUNK: Final = 64 * 1024
_GRACE_SECONDS: Final = 5.0
# At the limit of a file's size, a write fails then, and git says so; the signal would end it without a word.
_WITHOUT_SIGXFSZ: Final = (b"/bin/sh", b"-c", b"trap '' 25; exec \"$@\"", b"sh")


@dataclass(frozen=True, slots=True)
class Invocation:
    """What one run of git needs beside its command.

    `git_dir` is the repository, `cwd` the tree. `config` applies to this process only and may contain secrets; those
    are listed in `secrets` too, so that they are removed from git's messages. `protocol` is the one allowed transport;
    `ssh_key` is the private key that it shows, `ca` are certificates (PEM) that it believes besides the others.
    `inherited_fds` are open descriptors that the process gets too: a lock among them is held as long as git lives, even
    without us. `limits` hold for each process that git starts, such as the one that speaks to the remote.
    It is ended after `timeout_seconds`, or after `silence_seconds` in which nothing comes or goes.
    `http_trace` is a path to which git writes the headers that it gets and, without secrets, those that it sends.
    """

    git_dir: Path | None = None
    cwd: Path | None = None
    config: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    protocol: str = "none"
    ssh_key: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    stdin_file: Path | None = None
    timeout_seconds: float = 300
    silence_seconds: float | None = None
    output_limit: int = 16 * 1024 * 1024
    expected_codes: tuple[int, ...] = (0,)
    inherited_fds: tuple[int, ...] = ()
    limits: Limits | None = None
    http_trace: str = ""
    on_message: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class GitOutput:
    """What a git command wrote that exited with an expected code. `stderr` is the end of that stream, scrubbed."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def line(self) -> bytes:
        """The output without its last line break: the value of a command that prints one."""
        return self.stdout.rstrip(b"\n")


@dataclass(frozen=True, slots=True)
class _Program:
    """What is started: its name in messages, its command line, and the configuration that git reads."""

    name: str
    argv: tuple[bytes, ...]
    invocation: Invocation
    config: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, executable: Path, command: Command, invocation: Invocation) -> "_Program":
        """Return git with a command."""
        at = () if invocation.git_dir is None else (b"--git-dir=" + os.fsencode(invocation.git_dir),)
        argv = (os.fsencode(executable), *at, *git_argv(command))
        return cls(command.name, argv, invocation, command.spec.config)


class Git:
    """Starts git. One instance for each service.

    Every process has a process group of its own. When it takes too long, or its caller is cancelled, it gets SIGTERM,
    at which git removes its lock files, and 5 s later SIGKILL.
    """

    def __init__(
        self, executable: Path, home: Path, *, lends_ssh_identity: bool = False, certificates: str = ""
    ) -> None:
        """`lends_ssh_identity` lets remotes over ssh without a key be reached with those of our own user.

        `certificates` is a file of those that vouch for servers; empty means those that git finds by itself.
        """
        self._executable = executable
        self._home = home
        self._lends_ssh_identity = lends_ssh_identity
        self._certificates = certificates

    @property
    def executable(self) -> Path:
        """The path of git."""
        return self._executable

    @property
    def certificates(self) -> str:
        """The file of certificates that vouch for servers; empty means the machine's."""
        return self._certificates

    async def run(self, command: Command, invocation: Invocation | None = None) -> GitOutput:
        """Run one command to its end.

        Raises:
            GitFailed: it exited with an unexpected code. GitOutOfMemory, FileTooLarge: because of its `limits`.
            GitTimedOut, GitSilent: it took too long.
            OutputTooLarge: it wrote more than `output_limit` bytes.
            ValueError: the command is not allowed.
        """
        return await self._run(_Program.of(self._executable, command, invocation or Invocation()))

    async def run_over_ssh(self, host: str, port: int | None, words: str, invocation: Invocation) -> GitOutput:
        """Run a command line on a host of a remote, with the `ssh` and the key that git would use. Raises as `run`.

        `host` may begin with `user@`, and not with a dash; the shell of that host parses `words`.
        """
        at = (*((b"-p", str(port).encode()) if port else ()), b"--", host.encode(), words.encode())
        # The variable has options of ours, and nothing that a shell would have to take for one word.
        argv = (b"/bin/sh", b"-c", b'exec $GIT_SSH_COMMAND "$@"', b"ssh", *at)
        return await self._run(_Program("ssh", argv, invocation))

    async def _run(self, program: "_Program") -> GitOutput:
        invocation, stdout = program.invocation, bytearray()
        async with (
            self._started(program) as (process, stderr, patience),
            patience.within(invocation.timeout_seconds),
            patience.unless_silent(invocation.silence_seconds),
        ):
            reader = _pipe(process.stdout)
            while chunk := await reader.read(_CHUNK):
                stdout += chunk
                if len(stdout) > invocation.output_limit:
                    raise OutputTooLarge(program.name, invocation.output_limit)
            code = await _exit_code(process, stderr)
        if code not in invocation.expected_codes:
            raise failure_within(invocation.limits or Limits(), program.name, code, stderr.text)
        return GitOutput(code, bytes(stdout), stderr.text)

    async def stream(self, command: Command, invocation: Invocation) -> AsyncGenerator[bytes, None]:
        """Yield the output as it comes, at most 64 KiB at a time; git waits while the reader does.

        The timeout applies to each piece, because a slow reader is not git's fault. Close the generator
        (`contextlib.aclosing`) to end git early.

        Raises:
            GitFailed, GitTimedOut, ValueError: as `run`.
        """
        program = _Program.of(self._executable, command, invocation)
        async with self._started(program) as (process, stderr, patience):
            reader = _pipe(process.stdout)
            while True:
                async with patience.within(invocation.timeout_seconds):
                    chunk = await reader.read(_CHUNK)
                if not chunk:
                    break
                yield chunk
            async with patience.within(invocation.timeout_seconds):
                code = await _exit_code(process, stderr)
        if code not in invocation.expected_codes:
            raise GitFailed(command.name, code, stderr.text)

    @contextlib.asynccontextmanager
    async def _started(
        self, program: "_Program"
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, Messages, Patience]]:
        invocation = program.invocation
        with (
            _memory_file(_key(invocation.ssh_key)) as key_file,
            _memory_file(bundle(invocation.ca.encode(), self._certificates)) as certificates,
        ):
            process = await self._spawn(program, key_file, certificates or self._certificates)
            async with self._reported(process, invocation) as stderr:
                yield process, stderr, Patience(program.name, process.pid, lambda: stderr.text)

    @contextlib.asynccontextmanager
    async def _reported(self, process: asyncio.subprocess.Process, invocation: Invocation) -> AsyncIterator[Messages]:
        stderr = Messages(_pipe(process.stderr), invocation.secrets, invocation.on_message)
        try:
            yield stderr
        finally:
            await _end(process)
            # A pipe that is not read to its end stays open until the collector finds it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.gather(_discard(_pipe(process.stdout)), stderr.finished())
            await stderr.stop()

    async def _spawn(self, program: "_Program", key_file: str, certificates: str) -> asyncio.subprocess.Process:
        argv, invocation = list(program.argv), program.invocation
        if invocation.limits is not None:
            argv = rlimits.launcher((*_WITHOUT_SIGXFSZ, *argv), invocation.limits)
        with _stdin(invocation) as stdin:
            spawning = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *argv,
                    stdin=stdin,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    cwd=invocation.cwd or self._home,
                    env=self._environment(program, key_file, certificates),
                    start_new_session=True,
                    pass_fds=invocation.inherited_fds,
                )
            )
            try:
                return await asyncio.shield(spawning)
            except asyncio.CancelledError:
                # asyncio would kill a half-started process, but not its children.
                await _end(await spawning)
                raise

    def _environment(self, program: "_Program", key_file: str, certificates: str) -> dict[str, str]:
        invocation = program.invocation
        config = [*program.config.items(), *invocation.config]
        network = invocation.protocol in {"https", "http", "ssh"}
        environment = build_environment(self._home, config=config, protocol=invocation.protocol, network=network)
        if invocation.protocol == "ssh":
            environment |= ssh_variables(key_file, lends_identity=self._lends_ssh_identity)
        if network and certificates:
            environment |= {"GIT_SSL_CAINFO": certificates}
        if invocation.http_trace:
            environment |= {"GIT_TRACE_CURL": invocation.http_trace, "GIT_TRACE_CURL_NO_DATA": "1"}
        # The far side of a file remote finds git by name in PATH; it must be this same git.
        path = f"{self._executable.parent}:{environment['PATH']}"
        return environment | {"PATH": path}


async def _exit_code(process: asyncio.subprocess.Process, stderr: Messages) -> int:
    code = await process.wait()
    await stderr.finished()
    return code


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """Put something where git and ssh read it for as long as the block lasts: in memory, on no disk; "" for nothing.

    ssh closes all descriptors that it inherits, so it opens ours.
    """
    if not content:
        yield ""
        return
    with os.fdopen(os.memfd_create("for-git"), "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # else ssh takes a key for everybody's
        file.write(content)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _key(key: str) -> bytes:
    return key.replace("\r\n", "\n").strip().encode() + b"\n" if key else b""


@contextlib.contextmanager
def _stdin(invocation: Invocation) -> Iterator[int | BinaryIO]:
    if invocation.stdin_file is not None:
        with invocation.stdin_file.open("rb") as file:
            yield file
    else:
        yield asyncio.subprocess.DEVNULL


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK):
        pass


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process group, so that nothing of it is left."""
    if process.returncode is not None:
        return
    _signal_group(process.pid, signal.SIGTERM)
    # asyncio reports the exit only after all pipes are closed, and nobody reads this one any more.
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]
    if (output := transport.get_pipe_transport(1)) is not None:
        output.close()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await process.wait()
    finally:
        # Git may have ended while something that it started ignores SIGTERM.
        _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The group may end before our signal arrives.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _pipe(reader: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if reader is None:
        raise RuntimeError("the process was started without this pipe")
    return reader
