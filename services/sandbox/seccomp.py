"""The filter of system calls of a sandbox.

All are allowed except those below. Namespaces and the lack of all capabilities already keep a program from everything
else; this filter keeps it from the parts of the kernel where ways around them were found. A new line needs a reason,
and what ordinary programs do when they meet it. The call fails and the process is not killed, because many programs try
such a call and continue without it: with ENOSYS where programs expect that of an older kernel, with EPERM elsewhere.

Numbers: linux/arch/x86/entry/syscalls/syscall_64.tbl, linux/include/uapi/asm-generic/unistd.h.
"""

import errno
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.sandbox import bpf


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture whose numbers we know. `foreign_from` is the first number of its second ABI, if it has one."""

    audit: int
    column: int
    foreign_from: int | None = None


MACHINES = {
    "x86_64": Machine(0xC000003E, 0, foreign_from=0x40000000),  # x32
    "aarch64": Machine(0xC00000B7, 1),
}
"""By their names in `os.uname()`."""

Numbers = tuple[int | None, int | None]  # x86_64 and aarch64; None: that machine has no such call


@dataclass(frozen=True, slots=True)
class Refused:
    """Calls that fail with `error`, whatever their arguments."""

    why: str
    error: int
    calls: dict[str, Numbers]


REFUSED = (
    Refused(
        "Keys belong to a user and not to a namespace: with the service's uid an agent would have the service's.",
        errno.EPERM,
        {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    ),
    Refused(
        "Programs for the kernel, and its counters: large, and rich in ways to read and write what is not one's own.",
        errno.EPERM,
        {"bpf": (321, 280), "perf_event_open": (298, 241)},
    ),
    Refused(
        "Lets a program stop the kernel in the midst of a copy: what makes its races easy to win.",
        errno.EPERM,
        {"userfaultfd": (323, 282)},
    ),
    Refused(
        "Does what is refused here by other means, past this filter, and had a long list of escapes; libraries go on"
        " without it, as on an older kernel.",
        errno.ENOSYS,
        {"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    ),
    Refused(
        "Takes from what the whole machine has (`fs.aio-max-nr`): one call uses up all. Libraries go on without it.",
        errno.ENOSYS,
        {"io_setup": (206, 0)},
    ),
    Refused(
        "Its flags are in memory, where no filter can see them; the C library falls back to clone.",
        errno.ENOSYS,
        {"clone3": (435, 435)},
    ),
    Refused(
        "Joins namespaces, or changes what is mounted where, in the old way and in the new one.",
        errno.EPERM,
        {
            "setns": (308, 268),
            "mount": (165, 40),
            "umount2": (166, 39),
            "pivot_root": (155, 41),
            "chroot": (161, 51),
            "open_tree": (428, 428),
            "move_mount": (429, 429),
            "fsopen": (430, 430),
            "fsconfig": (431, 431),
            "fsmount": (432, 432),
            "fspick": (433, 433),
            "mount_setattr": (442, 442),
            "open_tree_attr": (467, 467),
        },
    ),
    Refused(
        "Opens any file of a file system, wherever one's root is; or takes a descriptor out of another process, such as"
        " the sandbox's init, which has the agent's uid.",
        errno.EPERM,
        {"open_by_handle_at": (304, 265), "pidfd_getfd": (438, 438)},
    ),
    Refused(
        "Puts code into the kernel, or another one in its place.",
        errno.EPERM,
        {
            "init_module": (175, 105),
            "finit_module": (313, 273),
            "delete_module": (176, 106),
            "kexec_load": (246, 104),
            "kexec_file_load": (320, 294),
            "reboot": (169, 142),
        },
    ),
    Refused(
        "The machine's own: its swap, clock, quotas, accounting, terminals, ports, and what its kernel says.",
        errno.EPERM,
        {
            "swapon": (167, 224),
            "swapoff": (168, 225),
            "settimeofday": (164, 170),
            "clock_settime": (227, 112),
            "quotactl": (179, 60),
            "quotactl_fd": (443, 443),
            "acct": (163, 89),
            "syslog": (103, 116),
            "vhangup": (153, 58),
            "iopl": (172, None),
            "ioperm": (173, None),
        },
    ),
    Refused(
        "Segments for 16-bit programs: of use to old Windows programs alone, and to attacks.",
        errno.EPERM,
        {"modify_ldt": (154, None)},
    ),
)

_CLONE: Numbers = (56, 220)
_UNSHARE: Numbers = (272, 97)
_IOCTL: Numbers = (16, 29)
_PTRACE: Numbers = (101, 117)
_PROCESS_VM: tuple[Numbers, ...] = ((310, 270), (311, 271))  # process_vm_readv, process_vm_writev
_SOCKET: Numbers = (41, 198)
_SOCKETPAIR: Numbers = (53, 199)

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. In its own namespace a program is root, and reaches
# what the kernel reserves for root.
_NEW_NAMESPACES = 0x7E020000
_NEW_TIME = 0x80  # for unshare only; in clone's flags it is part of a signal's number

# The sandbox's init: what it holds (descriptors, a lock) is ours, and its memory leads to that.
_INIT = 1

TERMINAL_REQUESTS = {
    "TIOCSTI": 0x5412,  # types into the terminal that the program was started from
    "TIOCLINUX": 0x541C,  # the same on the machine's console
    "TIOCSETD": 0x5423,  # loads line disciplines, whose drivers are old
}
"""Requests to terminals that are refused."""

FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""The available families of sockets. Others are for virtual machines and their hosts (vsock), or for drivers that are
rarely used and often broken; to a program they look as if the kernel was built without them."""


@functools.cache
def program() -> bytes | None:
    """Return the filter for this machine; None when its numbers are not known, or its kernel has no filters."""
    machine = MACHINES.get(os.uname().machine)
    if machine is None or "Seccomp:" not in Path("/proc/self/status").read_text():
        return None
    return assemble(machine)


def weakness() -> str | None:
    """Return what a sandbox lacks, for people, when there is no filter; None when there is one."""
    if program() is not None:
        return None
    return (
        f"there is no filter of system calls for this machine ({os.uname().machine}): a sandbox has its namespaces and"
        " no capability, but all of the kernel's calls"
    )


def assemble(machine: Machine) -> bytes:
    """Return the filter for a machine."""
    return bpf.assemble(_blocks(machine))


def _blocks(machine: Machine) -> Iterator[bpf.Block]:
    yield bpf.load_architecture()
    # Programs for another architecture have other numbers, so the wrong calls would be refused.
    yield bpf.unless_equal(machine.audit, bpf.kill())
    yield bpf.load_number()
    if machine.foreign_from is not None:
        yield bpf.when_at_least(machine.foreign_from, bpf.refuse(errno.ENOSYS))
    for refused in REFUSED:
        for numbers in refused.calls.values():
            if (number := numbers[machine.column]) is not None:
                yield bpf.when_equal(number, bpf.refuse(refused.error))
    for numbers, decide in _by_argument():
        if (number := numbers[machine.column]) is not None:
            yield bpf.when_equal(number, decide)
    yield bpf.allow()


def _by_argument() -> Iterator[tuple[Numbers, bpf.Block]]:
    """Yield the checks of calls that are refused for some of their arguments."""
    yield _CLONE, _unless_zero(0, _NEW_NAMESPACES)
    yield _UNSHARE, _unless_zero(0, _NEW_NAMESPACES | _NEW_TIME)
    not_init = bpf.when_equal(_INIT, bpf.refuse(errno.EPERM))
    yield _PTRACE, _joined(bpf.load_argument(1), not_init, bpf.allow())
    for numbers in _PROCESS_VM:
        yield numbers, _joined(bpf.load_argument(0), not_init, bpf.allow())
    requests = [bpf.when_equal(request, bpf.refuse(errno.EPERM)) for request in TERMINAL_REQUESTS.values()]
    yield _IOCTL, _joined(bpf.load_argument(1), *requests, bpf.allow())
    families = [bpf.when_equal(family, bpf.allow()) for family in FAMILIES.values()]
    socket = _joined(bpf.load_argument(0), *families, bpf.refuse(errno.EAFNOSUPPORT))
    yield _SOCKET, socket
    yield _SOCKETPAIR, socket


def _unless_zero(argument: int, bits: int) -> bpf.Block:
    """Refuse a call when any of these bits is set in an argument."""
    return _joined(
        bpf.load_argument(argument), bpf.mask(bits), bpf.unless_equal(0, bpf.refuse(errno.EPERM)), bpf.allow()
    )


def _joined(*blocks: bpf.Block) -> bpf.Block:
    return [instruction for block in blocks for instruction in block]
