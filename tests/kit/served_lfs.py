"""A repository with files in Git LFS, served by a git server with one of Git LFS beside it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.git.model import Base, Remote, StartPoint
from tests.kit.githttp import GitServer, git_server
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.lfs import LfsServer
from tests.kit.repos import Repo

RULES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
CONTENTS = {"a.bin": os.urandom(5000), "deep/er/b.bin": b"text\n" * 400, "tool.bin": b"#!/bin/sh\n"}


@dataclass
class Served:
    """A repository with files in Git LFS, and the servers of both."""

    parts: GitParts
    server: GitServer
    lfs: LfsServer
    work: Repo
    remote: Remote

    async def prepare(self, *, git_lfs: bool = True, revision: bytes = b"") -> Base:
        return await self.parts.prepare(self.remote, StartPoint(revision, git_lfs=git_lfs))

    def push(self) -> None:
        self.work.git("push", "--quiet", "--force", str(self.server.root / "app.git"), "main")


@asynccontextmanager
async def served_lfs(tmp_path: Path, **settings: object) -> AsyncIterator[Served]:
    """Serve one below a directory, to a git service with these settings."""
    work = Repo.sample(tmp_path / "work")
    lfs = LfsServer()
    pointers = {path: lfs.add(content).text.decode() for path, content in CONTENTS.items()}
    work.commit("files", {".gitattributes": RULES, **pointers})
    work.git("update-index", "--chmod=+x", "tool.bin")
    work.git("commit", "--quiet", "--message=a program")
    work.bare_clone(tmp_path / "served" / "app.git")
    with git_server(tmp_path / "served", "the-token") as server:
        server.lfs, server.records_processes = lfs, False
        async with git_parts(tmp_path / "home", allow_loopback_http=True, **settings) as parts:
            yield Served(parts, server, lfs, work, Remote("repo-1", server.url("app"), "the-token"))


def read(base: Base, path: str) -> bytes:
    """Return the content of a file of a base, whose layers are searched from the top."""
    return next((layer / path).read_bytes() for layer in base.layers if (layer / path).exists())
