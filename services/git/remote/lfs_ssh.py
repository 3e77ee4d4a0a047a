"""Asks the server of a remote over ssh where its objects of Git LFS are, and how to log in there.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/authentication.md: `git-lfs-authenticate PATH OPERATION` runs on
that server, for whoever the key is of. The objects themselves go over https, to an address that is judged as any is.
"""

import shlex
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from services.common.display import one_line
from services.common.errors import ServiceError
from services.git.gitcmd import Git, GitError, GitFailed
from services.git.model import Remote
from services.git.refusals import is_unreachable
from services.git.remote.addresses import AddressBook
from services.git.remote.lfs_batch import Endpoint, read_login
from services.git.remote.lfs_http import LfsError

_SECONDS: Final = 60.0
_ANSWER_BYTES: Final = 64 << 10
_SAID_CHARACTERS: Final = 120


async def ask_over_ssh(git: Git, addresses: AddressBook, remote: Remote, operation: str) -> Endpoint:
    """Return where to `download` or to `upload` objects. Raises LfsError."""
    host, port, path = _parts(remote.url)
    words = f"git-lfs-authenticate {shlex.quote(path)} {operation}"
    try:
        address = await addresses.resolve(remote.url)
        invocation = replace(address.invocation(remote), timeout_seconds=_SECONDS, output_limit=_ANSWER_BYTES)
        answer = await git.run_over_ssh(host, port, words, invocation)
    except ServiceError as error:
        raise LfsError(str(error)) from error
    except GitError as error:
        said = error.stderr if isinstance(error, GitFailed) else str(error)
        text = f"the server has no Git LFS over ssh: {one_line(said)[:_SAID_CHARACTERS] or 'it says nothing'}"
        raise LfsError(text, may_pass=is_unreachable(error)) from error
    try:
        return read_login(answer.stdout, _default(host, path))
    except ValueError as error:
        raise LfsError(f"the server does not answer as one of Git LFS over ssh: {error}") from error


def _parts(url: str) -> tuple[str, int | None, str]:
    """Return where ssh goes, by which port, and the path there."""
    if "://" not in url:
        host, _, path = url.partition(":")
        return host, None, path
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    path = parts.path.removeprefix("/") if parts.path.startswith("/~") else parts.path
    return f"{user}{parts.hostname}", parts.port, path


def _default(host: str, path: str) -> str:
    """Return the address for a server that names none."""
    name = path.strip("/").removesuffix(".git")
    return f"https://{host.rpartition('@')[2]}/{name}.git/info/lfs"
