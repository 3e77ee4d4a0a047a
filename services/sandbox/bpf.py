"""A small assembler for the programs with which the kernel filters system calls (classic BPF on `struct seccomp_data`).

A program is a list of instructions, run from the top until one returns; blocks are lists that are put together. Jumps
go forward only, over at most 255 instructions. See linux/Documentation/userspace-api/seccomp_filter.rst.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, operand
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS: the accumulator becomes a word of seccomp_data
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000


class Instruction(NamedTuple):
    """One `struct sock_filter`."""

    code: int
    if_true: int
    if_false: int
    operand: int


Block = Sequence[Instruction]


def load_number() -> Block:
    """The system call's number."""
    return [Instruction(_LOAD_WORD, 0, 0, _OFFSET_NUMBER)]


def load_architecture() -> Block:
    """The architecture of the call's number: an AUDIT_ARCH constant."""
    return [Instruction(_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE)]


def load_argument(index: int) -> Block:
    """The lower half of an argument (both machines that we know are little endian), counted from 0."""
    return [Instruction(_LOAD_WORD, 0, 0, _OFFSET_ARGUMENTS + 8 * index)]


def mask(bits: int) -> Block:
    """Keep only these bits of what is loaded."""
    return [Instruction(_AND, 0, 0, bits)]


def unless_equal(value: int, then: Block) -> Block:
    """Do `then` unless this value is loaded."""
    return [Instruction(_JUMP_EQUAL, _jump(then), 0, value), *then]


def when_equal(value: int, then: Block) -> Block:
    """Do `then` when this value is loaded."""
    return [Instruction(_JUMP_EQUAL, 0, _jump(then), value), *then]


def when_at_least(value: int, then: Block) -> Block:
    """Do `then` when this value or a larger one is loaded."""
    return [Instruction(_JUMP_AT_LEAST, 0, _jump(then), value), *then]


def allow() -> Block:
    """Allow the system call."""
    return [Instruction(_RETURN, 0, 0, _ALLOW)]


def refuse(errno: int) -> Block:
    """Let the call fail with this error, as if the kernel had returned it."""
    return [Instruction(_RETURN, 0, 0, _ERRNO | errno)]


def kill() -> Block:
    """End the process with SIGSYS."""
    return [Instruction(_RETURN, 0, 0, _KILL_PROCESS)]


def assemble(blocks: Iterable[Block]) -> bytes:
    """The program as the kernel takes it."""
    return b"".join(_INSTRUCTION.pack(*instruction) for block in blocks for instruction in block)


def _jump(over: Block) -> int:
    if len(over) > 255:
        raise ValueError(f"a jump over {len(over)} instructions is too long")
    return len(over)
