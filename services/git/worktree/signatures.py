"""Commits that are the same whenever they are made: author, committer and times come from outside."""

from typing import Final

from services.git.model import Signature

_CRUD: Final = "".join(map(chr, range(33))) + ".,:;<>\"\\'"


def signature_variables(signature: Signature) -> dict[str, str]:
    """Return the environment that makes git write exactly this signature."""
    date = f"@{signature.seconds} +0000"
    return {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in (("NAME", signature.name), ("EMAIL", signature.email), ("DATE", date))
    }


def without_crud(name: str) -> str:
    """Return a name or an address as git writes it: without what ident.c calls crud at its ends."""
    return name.strip(_CRUD)


def signature_line(signature: Signature) -> bytes:
    """Return what stands in a commit object after `author` and `committer`."""
    return f"{without_crud(signature.name)} <{without_crud(signature.email)}> {signature.seconds} +0000".encode()


def message_bytes(message: str) -> bytes:
    """Return a message as it stands in a commit: whole lines."""
    return message.encode() if message.endswith("\n") else f"{message}\n".encode()
