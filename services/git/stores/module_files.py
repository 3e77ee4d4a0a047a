"""Reads the `.gitmodules` of commits, and to which commits they link."""

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.git.gitcmd import Command, Git, Invocation, OutputTooLarge
from services.git.gitmodules import LISTING_BYTES, Module, is_path_in_a_tree, parse_modules

_FILE: Final = ".gitmodules"
_LINK: Final = b"160000"
_WRITTEN_FLAGS: Final = (
    *("--format=%H", "--raw", "-z", "-m", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv"),
)
_REMEMBERED: Final = 64
_REMEMBERED_BYTES: Final = 64 << 10
# They become arguments of one command.
_MOST_LINKS: Final = 1000
_LISTING_BYTES: Final = 256 << 20


class ModuleFiles:
    """Reads repositories of ours. What it has read of a commit it remembers for a while: commits do not change."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._read: OrderedDict[tuple[Path, str], dict[bytes, Module]] = OrderedDict()

    async def modules(self, repository: Path, commit_id: str) -> dict[bytes, Module]:
        """Return what the `.gitmodules` of a commit says, by paths.

        Nothing if there is none, or git cannot read it, or it says more than LISTING_BYTES.
        """
        key = (repository, commit_id)
        if key in self._read:
            return self._read[key]
        listing = await self._listing(repository, commit_id)
        modules = parse_modules(listing)
        if modules and len(listing) <= _REMEMBERED_BYTES:
            self._read[key] = modules
            if len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        return modules

    async def links(self, repository: Path, commit_id: str) -> dict[bytes, str]:
        """Return the commits to which a commit links at paths that its `.gitmodules` names.

        Raises:
            GitError: there is no such commit.
        """
        named = await self.modules(repository, commit_id)
        paths = tuple(filter(is_path_in_a_tree, named))[:_MOST_LINKS]
        if not paths:
            return {}
        links = await self._links(repository, Command("ls-tree", ("-z",), (commit_id, *paths)))
        return {path: linked for path, linked in links.items() if path in named}

    async def all_links(self, repository: Path, commit_id: str) -> dict[bytes, str]:
        """Return the commits to which a commit links anywhere. Raises GitError: there is no such commit."""
        return await self._links(repository, Command("ls-tree", ("-r", "-z"), (commit_id,)))

    async def written_links(self, repository: Path, commit_id: str, without: Iterable[str]) -> dict[str, set[str]]:
        """Return the commits that lead to one and write links, and to which commits these are.

        Left out are those that lead to any of `without`. Raises GitError: one of them is not there.
        """
        log = Command("log", _WRITTEN_FLAGS, (commit_id, *(f"^{each}" for each in without)))
        inside = Invocation(git_dir=repository, output_limit=_LISTING_BYTES)
        found, writer = dict[str, set[str]](), ""
        fields = iter((await self._git.run(log, inside)).stdout.split(b"\0"))
        for field in fields:
            facts = field.strip().split(b" ")
            if len(facts) == 1:
                writer = facts[0].decode() or writer
                continue
            next(fields)  # its path
            if facts[1] == _LINK:
                found.setdefault(writer, set()).add(facts[3].decode())
        return found

    async def _listing(self, repository: Path, commit_id: str) -> bytes:
        reading = Command("config", ("--list", "-z", f"--blob={commit_id}:{_FILE}"))
        inside = Invocation(git_dir=repository, expected_codes=(0, 1, 3, 128), output_limit=LISTING_BYTES)
        try:
            answer = await self._git.run(reading, inside)
        except OutputTooLarge:
            return b""
        return b"" if answer.code else answer.stdout

    async def _links(self, repository: Path, listing: Command) -> dict[bytes, str]:
        inside = Invocation(git_dir=repository, output_limit=_LISTING_BYTES)
        records = (await self._git.run(listing, inside)).stdout.split(b"\0")
        found = (record.partition(b"\t") for record in records if record.startswith(_LINK))
        return {path: facts.split(b" ")[2].decode() for facts, _, path in found}
