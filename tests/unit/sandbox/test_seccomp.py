"""The filter of system calls: what it decides on every machine, and that this machine's kernel takes it."""

import errno
import json
import os
import struct
import sys
from pathlib import Path

import pytest

from services.sandbox import aio, environment, seccomp
from services.sandbox.spec import SandboxSpec

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
X86, ARM = seccomp.MACHINES["x86_64"], seccomp.MACHINES["aarch64"]


def decide(machine: seccomp.Machine, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would do: run the program, as it does."""
    data = struct.pack("=iIQ6Q", number, audit or machine.audit, 0, *(arguments + (0,) * 6)[:6])
    program = list(struct.iter_unpack("=HBBI", seccomp.assemble(machine)))
    place, loaded = 0, 0
    while True:
        code, if_true, if_false, operand = program[place]
        place += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                loaded &= operand
            case 0x15:
                place += if_true if loaded == operand else if_false
            case 0x35:
                place += if_true if loaded >= operand else if_false
            case 0x06:
                return operand


@pytest.mark.parametrize("machine", [X86, ARM])
def test_what_is_refused_is_refused_and_what_programs_need_is_not(machine: seccomp.Machine) -> None:
    for refused in seccomp.REFUSED:
        for numbers in refused.calls.values():
            if (number := numbers[machine.column]) is not None:
                assert decide(machine, number) == ERRNO | refused.error
    needed = {"read": (0, 63), "openat": (257, 56), "execve": (59, 221), "ptrace": (101, 117), "futex": (202, 98)}
    for numbers in needed.values():
        assert decide(machine, numbers[machine.column]) == ALLOW


def test_calls_are_judged_by_their_arguments() -> None:
    clone, unshare, ioctl, socket, ptrace = 56, 272, 16, 41, 101
    threads, sigchld = 0x3D0F00, 17
    assert decide(X86, clone, threads) == ALLOW
    assert decide(X86, clone, 0x01200000 | sigchld) == ALLOW
    assert decide(X86, clone, 0x10000000 | sigchld) == ERRNO | errno.EPERM
    assert decide(X86, unshare, 0x400) == ALLOW
    assert decide(X86, unshare, 0x80) == ERRNO | errno.EPERM
    assert decide(X86, ioctl, 1, 0x5401) == ALLOW
    assert decide(X86, ioctl, 1, 0x5412) == ERRNO | errno.EPERM
    assert decide(X86, ioctl, 1, 0xFFFFFFFF00005412) == ERRNO | errno.EPERM, "the kernel looks at the lower half alone"
    assert decide(X86, ptrace, 16, 2) == ALLOW
    assert decide(X86, ptrace, 16, 1) == ERRNO | errno.EPERM
    assert decide(X86, socket, 2) == ALLOW
    assert decide(X86, socket, 40) == ERRNO | errno.EAFNOSUPPORT


def test_another_architecture_is_ended_and_a_second_abi_is_not_there() -> None:
    assert decide(X86, 3, audit=0x40000003) == KILL
    assert decide(X86, 0x40000000) == ERRNO | errno.ENOSYS
    assert decide(ARM, 3, audit=X86.audit) == KILL


TRY_ALL = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    ctypes.set_errno(0)
    libc.syscall(number, *[ctypes.c_ulong(2**64 - 1)] * 6)
    return ctypes.get_errno()
print(json.dumps([call(number) for number in json.loads(sys.argv[1])]))
"""


def sandboxed(*argv: str) -> SandboxSpec:
    # In HOME, which lies in memory and is private.
    return SandboxSpec(tuple(map(os.fsencode, argv)), Path("/home/agent"), environment=environment.base())


@pytest.mark.parametrize("machine", [os.uname().machine] if seccomp.program() else [])
async def test_the_kernel_refuses_them(machine: str) -> None:
    column = seccomp.MACHINES[machine].column
    wanted = [
        (numbers[column], refused.error)
        for refused in seccomp.REFUSED
        for numbers in refused.calls.values()
        if numbers[column] is not None
    ]
    seen = await aio.run(sandboxed("python3", "-c", TRY_ALL, json.dumps([number for number, _ in wanted])))
    assert json.loads(seen.stdout) == [error for _, error in wanted]


WORKING = {
    "git": "git init -q r && cd r && echo a > a && git add a && git -c user.name=a -c user.email=a commit -qm m"
    " && git gc -q && git clone -q . ../s && git -C ../s log --oneline | grep -c m",
    "python3": "python3 -c 'import threading, subprocess, multiprocessing as m, sqlite3, socket; t = [threading.Thread("
    "target=print, args=(1,)) for _ in range(8)]; [x.start() for x in t]; [x.join() for x in t];"
    ' subprocess.run(["true"], check=True); p = m.Process(target=print); p.start(); p.join(); assert p.exitcode == 0\'',
    "node": 'node -e \'require("child_process").execSync("true"); require("fs").promises.readFile("/etc/passwd")'
    '.then(b => console.log(b.length)); new (require("worker_threads").Worker)("1", {eval: true})\'',
    "gcc": "printf 'int main(){return 0;}' > a.c && printf 'a: a.c\\n\\tgcc -pthread -o a a.c\\n' > Makefile"
    " && make -j2 && ./a",
    "perl": "perl -e 'print fork() // die' > /dev/null",
    "strace": "strace -f -o trace sh -c true && grep -q execve trace",
    "gdb": "gdb -q -batch -ex run -ex quit --args /bin/true 2>&1 | grep -q 'exited normally'",
    "curl": "curl --version",
    "go": "printf 'package main\\nfunc main(){ go func(){}() }' > a.go && GOCACHE=/tmp/go go run a.go",
    "tar": "mkdir d && touch d/a && tar czf a.tgz d && tar xzf a.tgz",
}


def _installed(program: str) -> bool:
    return any((directory / program).exists() for directory in environment.search_path())


@pytest.mark.parametrize("program", [name for name in WORKING if _installed(name)])
async def test_real_programs_work_in_it(program: str) -> None:
    completed = await aio.run(sandboxed("sh", "-ec", WORKING[program]), timeout=60)
    assert completed.exit_code == 0, completed


async def test_pytest_works_in_it() -> None:
    line = f"echo 'def test_it(tmp_path): assert tmp_path.exists()' > test_it.py; {sys.executable} -m pytest -q"
    line = f"export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1; {line}"
    completed = await aio.run(sandboxed("sh", "-c", line), timeout=60)
    assert completed.exit_code == 0, completed
