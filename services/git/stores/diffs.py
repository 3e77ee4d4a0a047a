"""Differences between two commits of a result store. Stores are ours, so no sandbox is needed."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from services.git.gitcmd import Command, Git, Invocation
from services.git.model import ChangedFile, ChangeKind, DiffEnd
from services.git.names import SINGLE_COMMITS

FILE_START: Final = b"diff --git "
_DIFF_FLAGS: Final = ("--find-renames", "--no-ext-diff", "--no-textconv")
UNIFIED_FLAGS: Final = (*_DIFF_FLAGS, "--no-color", "--full-index", "--src-prefix=a/", "--dst-prefix=b/")
_TOUCHED_FLAGS: Final = ("--format=", "--raw", "-z", "-m", "--no-renames", "--no-ext-diff", "--no-textconv")
# The second --not ends the first: what follows is what to list.
_NOT_ON_A_BRANCH: Final = ("--not", f"--exclude={SINGLE_COMMITS}*", "--all", "--not")
_TIMEOUT_SECONDS: Final = 600.0
_LISTING_LIMIT: Final = 256 << 20


class Diffs:
    """Reads differences, with renames detected."""

    def __init__(self, git: Git) -> None:
        self._git = git

    async def merge_base(self, store: Path, one: str, other: str) -> str | None:
        """Return the merge base of two commits, None when they have no common history."""
        command = Command("merge-base", (), (one, other))
        invocation = Invocation(git_dir=store, timeout_seconds=_TIMEOUT_SECONDS, expected_codes=(0, 1))
        return (await self._git.run(command, invocation)).line.decode("ascii") or None

    async def changed_files(self, store: Path, base: str, commit: str) -> list[ChangedFile]:
        """List the files that differ, by path."""
        command = Command("diff", (*_DIFF_FLAGS, "--raw", "--numstat", "-z"), (base, commit))
        invocation = Invocation(git_dir=store, timeout_seconds=_TIMEOUT_SECONDS, output_limit=_LISTING_LIMIT)
        return sorted(parse_changes((await self._git.run(command, invocation)).stdout), key=lambda file: file.path)

    async def touched_paths(self, store: Path, base: str, commit: str) -> set[bytes]:
        """Return what any commit between the two changes, also what a later one changes back."""
        return await self._touched(store, Command("log", _TOUCHED_FLAGS, (f"{base}..{commit}",)))

    async def touched_on_no_branch(self, mirror: Path, commit: str) -> set[bytes]:
        """Return what those commits change that lead to this one, and that no branch or tag of the remote has."""
        return await self._touched(mirror, Command("log", (*_TOUCHED_FLAGS, *_NOT_ON_A_BRANCH), (commit,)))

    async def _touched(self, repository: Path, log: Command) -> set[bytes]:
        invocation = Invocation(git_dir=repository, timeout_seconds=_TIMEOUT_SECONDS, output_limit=_LISTING_LIMIT)
        fields = iter((await self._git.run(log, invocation)).stdout.split(b"\0"))
        return {next(fields) for field in fields if field.startswith(b":")}

    async def diff(self, store: Path, base: str, commit: str, max_bytes: int) -> AsyncGenerator[bytes | DiffEnd, None]:
        """Yield the unified diff in pieces, then its end.

        `max_bytes` cuts the diff before the first file that would exceed it; 0 means no limit. The part of one file is
        held in memory until it is known to fit, at most `max_bytes` of it.
        """
        command = Command("diff", UNIFIED_FLAGS, (base, commit))
        invocation = Invocation(git_dir=store, timeout_seconds=_TIMEOUT_SECONDS)
        if not max_bytes:
            async with aclosing(self._git.stream(command, invocation)) as chunks:
                async for chunk in chunks:
                    yield chunk
            yield DiffEnd(0)
            return
        shown_files = 0
        async with aclosing(self._git.stream(command, invocation)) as chunks:
            async for part in whole_files(chunks, max_bytes):
                shown_files += 1
                yield part
        files = await self.changed_files(store, base, commit)
        yield DiffEnd(len(files) - shown_files)


async def whole_files(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    r"""Yield the part of a diff that belongs to each file; stop before the total exceeds `limit` bytes.

    Lines of content begin with one of ` +-\@`, so a line that begins with `diff --git` begins a file.
    """
    buffer = bytearray()
    remaining = limit
    async for chunk in chunks:
        search_from = max(0, len(buffer) - len(FILE_START))
        buffer += chunk
        while (end := buffer.find(b"\n" + FILE_START, search_from)) >= 0:
            part = bytes(buffer[: end + 1])
            del buffer[: end + 1]
            search_from = 0
            if len(part) > remaining:
                return
            remaining -= len(part)
            yield part
        if len(buffer) > remaining + len(FILE_START):
            return
    if buffer and len(buffer) <= remaining:
        yield bytes(buffer)


def parse_changes(output: bytes) -> list[ChangedFile]:
    """Parse `git diff --raw --numstat -z`: first a record for each file, then their line counts in the same order."""
    fields = iter(output.split(b"\0"))
    changes: list[tuple[ChangeKind, bytes, bytes]] = []
    files: list[ChangedFile] = []
    for field in fields:
        if field.startswith(b":"):
            change = ChangeKind(field.rsplit(b" ", 1)[1][:1].decode("ascii"))
            path = next(fields)
            changes.append((change, next(fields), path) if change is ChangeKind.RENAMED else (change, path, b""))
        elif field:
            change, path, old_path = changes[len(files)]
            added, deleted, named = field.split(b"\t", 2)
            if not named:
                # For a renamed file the two paths follow as fields of their own.
                next(fields), next(fields)
            files.append(ChangedFile(path, change, old_path, _count(added), _count(deleted)))
    return files


def _count(number: bytes) -> int | None:
    return None if number == b"-" else int(number)
