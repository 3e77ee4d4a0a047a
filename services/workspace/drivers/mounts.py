"""Overlay mounts by system calls: no program is started, so a mount takes half a millisecond.

All functions block, and must run in a thread: unmounting writes back the dirty pages of the upper file system
(measured: 1.6 ms when idle, 165 ms behind 600 MB of other writes).
"""

import ctypes
import errno
import os
import re
import time
from contextlib import ExitStack
from pathlib import Path

from services.sandbox import host_uids, user_namespaces
from services.workspace.drivers.idmapped import idmapped

_MS_NOSUID, _MS_NODEV, _MS_NOATIME = 0x2, 0x4, 0x400
_MNT_DETACH, _UMOUNT_NOFOLLOW = 0x2, 0x8
_NOTHING_THERE = (errno.EINVAL, errno.ENOENT)
_BUSY_PAUSE_S = 0.02
_libc = ctypes.CDLL(None, use_errno=True)


def mount_overlay(lowers: tuple[Path, ...], upper: Path, work: Path, target: Path) -> None:
    """Stack `lowers`, the topmost first, under `upper` at `target`.

    The directories are passed as descriptors, so that no character of a path has a meaning for the kernel's option
    parser, and every path is short (mount(2) takes one page of options; about 200 layers fit). `redirect_dir` allows
    renames of the base's directories. With `index` the kernel refuses a second mount of an upper directory, wherever
    the first one still is, instead of corrupting both. Where the upper directory belongs to a uid of agents, root's
    files below seem to belong to it too.

    Raises:
        OSError: the kernel refuses; EBUSY where the upper directory is mounted already.
        SandboxUnavailableError: the kernel refuses to map the layers below to an agent's uid.
    """
    with ExitStack() as stack:

        def named(path: Path) -> str:
            return kept(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

        def kept(descriptor: int) -> str:
            stack.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        if (owner := host_uids.owner(upper)) is None:
            below = ":".join(map(named, lowers))
        else:
            namespace = user_namespaces.make(f"0 {owner} 1\n")
            stack.callback(os.close, namespace)
            below = ":".join(kept(idmapped(lower, namespace)) for lower in lowers)
        options = f"lowerdir={below},upperdir={named(upper)},workdir={named(work)},redirect_dir=on,index=on"
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOATIME
        if _libc.mount(b"boatyard", os.fsencode(target), b"overlay", ctypes.c_ulong(flags), options.encode()) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(target))
        if os.statvfs(target).f_flag & os.ST_RDONLY:  # the kernel does so, and says nothing, where it cannot write
            unmount(target)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))


def unmount(target: Path, patience_s: float = 0.0) -> bool:
    """Unmount everything at `target`; return False when it is still busy after `patience_s`.

    It is no error when nothing is mounted, or `target` does not exist. Raises OSError.
    """
    deadline = time.monotonic() + patience_s
    while True:
        number = _umount2(target, 0)
        if number in _NOTHING_THERE:
            return True
        if number == errno.EBUSY:
            if time.monotonic() > deadline:
                return False
            time.sleep(_BUSY_PAUSE_S)
        elif number:
            raise OSError(number, os.strerror(number), str(target))


def hide(target: Path) -> None:
    """Detach what is mounted at `target`: those who are in it keep it, and it is unmounted when the last one leaves."""
    number = _umount2(target, _MNT_DETACH)
    if number not in {0, *_NOTHING_THERE}:
        raise OSError(number, os.strerror(number), str(target))


def mounted_below(directory: Path) -> list[Path]:
    """Return the mount points below a directory, as this process sees them, the innermost first."""
    root = os.fsencode(directory.resolve()) + b"/"
    points = [_unescaped(line.split(b" ")[4]) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
    return [Path(os.fsdecode(point)) for point in reversed(points) if point.startswith(root)]


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def _umount2(target: Path, flags: int) -> int:
    done = _libc.umount2(os.fsencode(target), flags | _UMOUNT_NOFOLLOW)
    return 0 if done == 0 else ctypes.get_errno()
