"""Signatures and messages as git writes them into commits: with all of it given, the same work is the same commit."""

from typing import Final

from services.git.model import Signature

_CRUD: Final = "".join(map(chr, range(33))) + ".,:;<>\"\\'"


def signature_variables(signature: Signature) -> dict[str, str]:
    """Return the environment variables that make git write exactly this signature."""
    date = f"@{signature.seconds} +0000"
    return {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in (("NAME", signature.name), ("EMAIL", signature.email), ("DATE", date))
    }


def without_crud(name: str) -> str:
    """Return a name or an address as git writes it: without what git's ident.c calls crud at both ends."""
    return name.strip(_CRUD)


def signature_line(signature: Signature) -> bytes:
    """Return what follows `author` and `committer` in a commit object."""
    return f"{without_crud(signature.name)} <{without_crud(signature.email)}> {signature.seconds} +0000".encode()


def message_bytes(message: str) -> bytes:
    """Return a message as a commit has it: whole lines."""
    return message.encode() if message.endswith("\n") else f"{message}\n".encode()
