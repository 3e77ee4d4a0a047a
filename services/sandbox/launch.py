"""Turns a spec into something to spawn."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.sandbox import bubblewrap, descriptors, environment, host_uids, layer_locks, rlimits, seccomp, shared_uid
from services.sandbox.errors import NotMountedError, SandboxUnavailableError
from services.sandbox.spec import Mount, Overlay, SandboxSpec, Tier

_NO_HOME = Path("/nonexistent")


@dataclass(frozen=True, slots=True)
class Launch:
    """The arguments of `subprocess.Popen`, for spawning in a new session and from the main thread."""

    argv: list[bytes]
    env: Mapping[bytes, bytes]
    cwd: Path
    pass_fds: tuple[int, ...]
    uid: int | None = None
    """The uid that it has outside of the sandbox; None for ours."""


@contextlib.contextmanager
def prepare(
    spec: SandboxSpec, *, status_fd: int | None = None, block_fd: int | None = None, home: Path | None = None
) -> Iterator[Launch]:
    """Prepare everything that the process needs at its start; leave the context when it is spawned.

    `status_fd` is the write end of a pipe on which bubblewrap reports `child-pid`, the pid of the namespace's init on
    the host, and later `exit-code`, as JSON documents; tier NONE reports nothing. With `block_fd`, the read end of
    another pipe, the program begins when there is something in it; tier NONE does not wait. With tier NONE `home`
    replaces the sandbox's TMPDIR, and its HOME where the spec has none; without both there is no HOME, for in /tmp
    anybody may put a .gitconfig.

    Layers are held from here on, by the caller and then by the sandbox; this may block for up to 2 s.

    Raises:
        SandboxUnavailableError: there is no usable bubblewrap, the spec asks of tier NONE what only a sandbox can, or
            layers that should be mounted are not.
        HeldError: another sandbox has the layers.
        ValueError: the spec itself is wrong.
    """
    _check(spec)
    uid = host_uids.of(spec)
    command = rlimits.launcher(spec.argv, spec.limits, () if uid is None else (host_uids.CLOSING,))
    if spec.tier is Tier.NONE:
        yield Launch(command, _bare_environment(spec, home), bare_cwd(spec), ())
        return
    with contextlib.ExitStack() as stack:
        files = {
            path: stack.enter_context(descriptors.memory_file(content))
            for path, content in bubblewrap.files(spec).items()
        }
        program = seccomp.program()
        filters = [] if program is None else [stack.enter_context(descriptors.memory_file(program))]
        namespace = () if uid is None else host_uids.namespace_arguments()
        text = bubblewrap.arguments(spec, files, filters, namespace)
        args = stack.enter_context(descriptors.memory_file(text))
        given = {
            option: stack.enter_context(descriptors.high(fd))
            for option, fd in ((b"--json-status-fd", status_fd), (b"--block-fd", block_fd))
            if fd is not None
        }
        held = [stack.enter_context(descriptors.high(fd)) for fd in stack.enter_context(hold_layers(spec))]
        options = [part for option, fd in given.items() for part in (option, b"%d" % fd)]
        options += [part for fd in held for part in (b"--sync-fd", b"%d" % fd)]
        argv = [bytes(bubblewrap.program()), b"--args", b"%d" % args, *options, b"--", *command]
        argv = shared_uid.bounded(argv) if uid is None else host_uids.started_as(uid, argv)
        passed = (*files.values(), args, *filters, *given.values(), *held, *_mounted_descriptors(spec))
        yield Launch(argv, {}, Path("/"), passed, uid)


def _mounted_descriptors(spec: SandboxSpec) -> list[int]:
    mounts = (mount for mount in spec.mounts if isinstance(mount, Mount))
    return [mount.descriptor for mount in mounts if mount.descriptor is not None]


def _check(spec: SandboxSpec) -> None:
    if not spec.argv or not spec.argv[0] or spec.argv[0].startswith(b"-"):
        raise ValueError("argv must begin with a program's name or path, which never begins with a dash")
    if any(b"\0" in part for part in (*spec.argv, *spec.environment.values())):
        raise ValueError("arguments and environment cannot hold a NUL byte")
    if any(not name or "=" in name or "\0" in name for name in spec.environment):
        raise ValueError("the names of environment variables are not empty and hold neither '=' nor NUL")


@contextlib.contextmanager
def hold_layers(spec: SandboxSpec) -> Iterator[list[int]]:
    """Hold the layers of the spec, and check that those are mounted that should be.

    Gives the descriptors that hold them, which are closed when the context is left.

    Raises:
        NotMountedError: layers that should be mounted are not.
        HeldError: another sandbox has them.
        ValueError: there are two writable stacks.
    """
    layered = [mount for mount in spec.mounts if isinstance(mount, Overlay) and mount.upper is not None]
    if len(layered) > 1:
        raise ValueError("a sandbox can have one writable stack of layers: bubblewrap keeps one descriptor")
    with contextlib.ExitStack() as stack:
        fds = [
            layer_locks.acquire(mount.upper, mount.holder, shared=mount.mounted is not None)
            for mount in layered
            if mount.upper
        ]
        for fd in fds:
            stack.callback(os.close, fd)
        check_mounted(spec)
        yield fds


def check_mounted(spec: SandboxSpec) -> None:
    """Check that the spec's layers are mounted where the host mounts them. Raises NotMountedError."""
    for mount in spec.mounts:
        if isinstance(mount, Overlay):
            _check_mounted(mount)


def _check_mounted(mount: Overlay) -> None:
    # After a reboot the directory exists and is empty: work in it would look like a tree with everything deleted.
    if mount.mounted is not None and not mount.mounted.is_mount():
        raise NotMountedError(mount.mounted)


def bare_cwd(spec: SandboxSpec) -> Path:
    """Return where a program without a sandbox starts, on the host.

    Raises SandboxUnavailableError, NotMountedError.
    """
    targets: list[tuple[Path, Path]] = []
    for mount in spec.mounts:
        if isinstance(mount, Mount):
            targets.append((mount.target or mount.source, mount.source))
        elif mount.mounted is not None:
            _check_mounted(mount)
            targets.append((mount.target, mount.mounted))
        else:
            raise SandboxUnavailableError("a layered workspace needs the sandbox", "Use tier bubblewrap")
    inside = [(target, source) for target, source in targets if spec.cwd.is_relative_to(target)]
    if not inside:
        return spec.cwd
    target, source = max(inside, key=lambda pair: len(pair[0].parts))
    return source / spec.cwd.relative_to(target)


def _bare_environment(spec: SandboxSpec, home: Path | None) -> dict[bytes, bytes]:
    complete = {name.encode(): value for name, value in spec.environment.items()}
    if complete.get(b"HOME") == bytes(environment.HOME):
        complete[b"HOME"] = bytes(spec.home or home or _NO_HOME)
    if home is not None and b"TMPDIR" in complete:
        complete[b"TMPDIR"] = bytes(home)
    return complete
