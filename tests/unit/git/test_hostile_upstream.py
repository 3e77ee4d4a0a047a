"""A repository that is fetched may hold anything: it is refused, or a tree of it is made, and nothing of it runs."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.common.errors import FailedPrecondition, ServiceError
from services.git.model import CloneSpec, Remote, StartPoint
from tests.kit.gitservice import GitParts, git_parts
from tests.kit.repos import Repo
from tests.unit.git.test_hostile import HOOKS, script, soon_or_later


def raw_tree(repo: Repo, *entries: tuple[str, bytes, str]) -> str:
    """Write a tree that git itself would never write."""
    content = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    return repo.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)


def with_tree(repo: Repo, *entries: tuple[str, bytes, str]) -> None:
    commit = repo.git("commit-tree", "-p", "HEAD", "-m", "odd", raw_tree(repo, *entries))
    repo.git("update-ref", "refs/heads/main", commit)


def blob(repo: Repo, content: str) -> str:
    return repo.git("hash-object", "-w", "--stdin", stdin=content.encode())


def named(name: bytes) -> Callable[[Repo, Path], None]:
    """A file of this name, and a directory of it with a configuration in it."""

    def plant(repo: Repo, canary: Path) -> None:
        evil = blob(repo, f'[core]\n\tfsmonitor = "touch {canary};:"\n')
        inner = raw_tree(repo, ("100644", b"config", evil))
        with_tree(repo, ("40000", name, inner))

    return plant


def twice(repo: Repo, canary: Path) -> None:
    link = blob(repo, str(canary.parent))
    inner = raw_tree(repo, ("100644", b"escape", blob(repo, "x")))
    with_tree(repo, ("120000", b"a", link), ("40000", b"a", inner))


def modules(text: str) -> Callable[[Repo, Path], None]:
    def plant(repo: Repo, canary: Path) -> None:
        repo.write({".gitmodules": text.format(canary=canary)})
        repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.head()},sub")
        repo.git("add", ".gitmodules")
        repo.git("commit", "--quiet", "--message=modules")

    return plant


def linked_modules(repo: Repo, canary: Path) -> None:
    with_tree(repo, ("120000", b".gitmodules", blob(repo, "elsewhere")))


def own_commands(repo: Repo, canary: Path) -> None:
    repo.commit("attributes", {".gitattributes": "* filter=evil diff=evil\n"})
    for name in HOOKS:
        script(repo.path / ".git" / "hooks" / name, canary)
    script(repo.path.parent / "evil", canary)
    for key in ("core.fsmonitor", "core.alternateRefsCommand", "uploadpack.packObjectsHook", "core.sshCommand",
                "filter.evil.smudge", "filter.evil.clean", "diff.evil.textconv", "core.editor"):  # fmt: skip
        repo.git("config", key, str(repo.path.parent / "evil"))


def links(repo: Repo, canary: Path) -> None:
    (repo.path / "out").symlink_to(canary.parent)
    (repo.path / "git").symlink_to(".git/config")
    (repo.path / "self").symlink_to("self")
    repo.commit("links")


def odd_names(repo: Repo, canary: Path) -> None:
    entries = [b"-rf", b"--upload-pack=x", b"CON", b"aux.txt", b"README", b"readme", b"a\nb", b"\xff\xfe", b"n" * 255,
               b" ", b":(glob)*", b"$(touch canary)", b"~", b"\\\\host\\share"]  # fmt: skip
    one = blob(repo, "x")
    with_tree(repo, *(("100644", name, one) for name in sorted(entries)))


def odd_refs(repo: Repo, canary: Path) -> None:
    for name in (f"refs/heads/$(touch${{IFS}}{canary.name})", "refs/heads/-x", "refs/tags/--help", "refs/heads/a;b|c"):
        repo.git("update-ref", name, "HEAD")


def gone(repo: Repo, canary: Path) -> None:
    missing = "ab" * 20
    with_tree(repo, ("100644", b"missing", missing))


PLANTS: dict[str, tuple[Callable[[Repo, Path], None], bool]] = {
    # name: (plant, whether it is refused)
    ".git": (named(b".git"), True),
    ".GIT": (named(b".GIT"), True),
    "git~1": (named(b"git~1"), True),
    "..": (named(b".."), True),
    "no name": (named(b""), True),
    "a slash": (named(b"a/../../escape"), True),
    "a link and a directory": (twice, True),
    "a submodule's command": (modules('[submodule "sub"]\npath = sub\nurl = ./x\nupdate = !touch {canary}\n'), True),
    "a submodule's option": (modules('[submodule "sub"]\npath = sub\nurl = -u./evil\n'), True),
    "a submodule above": (modules('[submodule "../sub"]\npath = sub\nurl = ./x\n'), True),
    "a submodule by ext": (modules('[submodule "sub"]\npath = sub\nurl = ext::touch% {canary}\n'), False),
    "linked .gitmodules": (linked_modules, True),
    "commands of its own": (own_commands, False),
    "links": (links, False),
    "odd names": (odd_names, False),
    "odd refs": (odd_refs, False),
    "a missing object": (gone, True),
}

SOON = (".git", ".GIT", "..", "a link and a directory", "a submodule's command", "commands of its own", "odd names")


@pytest.mark.parametrize("name", soon_or_later(PLANTS, SOON))
async def test_what_a_remote_holds_is_refused_or_harmless(parts: GitParts, tmp_path: Path, name: str) -> None:
    plant, refused = PLANTS[name]
    canary = tmp_path / "canary"
    repo = Repo.sample(tmp_path / "work")
    plant(repo, canary)
    remote = Remote("repo-1", str(repo.path))
    if refused:
        with pytest.raises(FailedPrecondition) as failure:
            await parts.prepare(remote)
        assert failure.value.reason in {"REMOTE_MALFORMED", "CLONE_FAILED"}
        assert not parts.paths.base("repo-1", repo.head("main")).exists()
    else:
        base = await parts.prepare(remote)
        workspace = parts.workspace(base)
        workspace.agent.write({"work": "1"})
        result = await parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
        changes = await parts.manager.changed_files("repo-1", base.commit_id, result.commit_id)
        assert [change.path for change in changes] == [b"work"]
        if name != "commands of its own":  # its hooks would run as whoever owns it: us
            await parts.manager.push(remote, result.commit_id, b"done", "")
            assert repo.head("done") == result.commit_id
    assert not canary.exists()
    assert not (tmp_path / "escape").exists()
    assert list(parts.paths.scratch_root.iterdir()) == []


@contextlib.contextmanager
def redirecting(location: str) -> Iterator[tuple[int, list[str]]]:
    """A server that sends everybody elsewhere; gives its port, and the Authorization of whoever came."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(302)
            self.send_header("Location", location.format(path=self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield httpd.server_address[1], seen
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    with redirecting("http://127.0.0.1:1/{path}") as (elsewhere, visitors):
        with redirecting(f"http://127.0.0.1:{elsewhere}{{path}}") as (port, _):
            async with git_parts(tmp_path / "home", allow_loopback_http=True) as parts:
                with pytest.raises(ServiceError) as failure:
                    await parts.prepare(Remote("repo-1", f"http://127.0.0.1:{port}/x.git", "canary-token"))
        assert failure.value.reason == "REMOTE_MOVED"
        assert visitors == []


@contextlib.contextmanager
def endless(beginning: bytes, piece: bytes, most: int) -> Iterator[tuple[int, list[int]]]:
    """A server that answers everything with a beginning and then the same piece for ever; gives how much it sent."""
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(beginning)
                while sum(sent) < most:
                    self.wfile.write(piece)
                    sent.append(len(piece))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield httpd.server_address[1], sent
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def advertised(oid: str, name: str) -> bytes:
    line = f"{oid} {name}\n".encode()
    return f"{len(line) + 4:04x}".encode() + line


async def test_a_listing_without_an_end_is_cut_off(tmp_path: Path) -> None:
    refs = b"".join(advertised("ab" * 20, f"refs/heads/{number:06}") for number in range(20_000))
    with endless(b"001e# service=git-upload-pack\n0000", refs, most=1 << 30) as (port, sent):
        async with git_parts(tmp_path / "home", allow_loopback_http=True, fetch_memory_bytes=64 << 20) as parts:
            with pytest.raises(FailedPrecondition) as failure:
                await parts.prepare(Remote("repo-1", f"http://127.0.0.1:{port}/x.git"))
            assert not parts.paths.mirror("repo-1").exists()
            assert list(parts.paths.scratch_root.iterdir()) == []
    assert failure.value.reason == "REMOTE_TOO_LARGE"
    assert "BOATYARD_GIT_FETCH_MEMORY_BYTES" in str(failure.value)
    assert sum(sent) < 128 << 20


def with_many_refs(repo: Repo, number: int) -> None:
    head = repo.head()
    lines = sorted(f"{head} refs/{'tags' if count % 2 else 'heads'}/many/{count:06}\n" for count in range(number))
    (repo.path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + "".join(lines))


async def test_of_too_many_refs_only_the_asked_ones_are_fetched(tmp_path: Path) -> None:
    work = Repo.sample(tmp_path / "work")
    upstream = work.bare_clone(tmp_path / "remote.git")
    with_many_refs(upstream, 20_000)
    upstream.git("update-ref", "refs/heads/main", work.head())
    remote = Remote("repo-1", str(upstream.path))
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        default = await parts.prepare(remote)
        assert default.branch == b"main"
        mirror = Repo(parts.paths.mirror("repo-1"))
        assert mirror.git("for-each-ref", "--format=%(refname)").splitlines() == [
            "refs/heads/main",
            "refs/upstream/HEAD",
        ]
        new = work.commit("new", {"new": "1"})
        work.git("push", "--quiet", str(upstream.path), "main:refs/heads/many/000002")
        asked = [b"many/000002", b"many/000001", b"many/000004"]
        bases = await asyncio.gather(*(parts.prepare(remote, StartPoint(revision)) for revision in asked))
        assert [base.commit_id for base in bases] == [new, default.commit_id, default.commit_id]
        assert len(mirror.git("for-each-ref", "--format=%(refname)").splitlines()) == 5
        upstream.git("update-ref", "-d", "refs/heads/many/000002")
        upstream.git("update-ref", "refs/heads/many/000002/below", new)
        assert (await parts.prepare(remote, StartPoint(b"many/000002/below"))).commit_id == new
        with pytest.raises(ServiceError) as failure:
            await parts.prepare(remote, StartPoint(b"many/000002"))
        assert failure.value.reason == "REVISION_NOT_FOUND"


async def test_a_mirror_that_has_too_many_refs_already_loses_them(tmp_path: Path) -> None:
    upstream = Repo.sample(tmp_path / "work").bare_clone(tmp_path / "remote.git")
    with_many_refs(upstream, 100)
    remote = Remote("repo-1", str(upstream.path))
    upstream.git("update-ref", "refs/heads/main", "refs/tags/many/000001")
    async with git_parts(tmp_path / "home", tmp_path) as parts:
        await parts.prepare(remote)
        mirror = Repo(parts.paths.mirror("repo-1"))
        assert len(mirror.git("for-each-ref").splitlines()) == 102
    async with git_parts(tmp_path / "home", tmp_path, max_refs=50) as parts:
        await parts.prepare(remote, StartPoint(b"many/000002"))
        kept = mirror.git("for-each-ref", "--format=%(refname)").splitlines()
        assert kept == ["refs/heads/main", "refs/heads/many/000002", "refs/upstream/HEAD"]
        upstream.git("symbolic-ref", "HEAD", "refs/heads/nowhere")
        await parts.prepare(remote, StartPoint(b"many/000002"))
        assert "refs/upstream/HEAD" not in mirror.git("for-each-ref", "--format=%(refname)").splitlines()


@pytest.mark.parametrize("fetched_before", [False, True])
async def test_what_is_more_than_one_fetch_may_bring_is_removed(tmp_path: Path, *, fetched_before: bool) -> None:
    work = Repo.sample(tmp_path / "work")
    upstream = work.bare_clone(tmp_path / "remote.git")
    remote = Remote("repo-1", str(upstream.path))
    async with git_parts(tmp_path / "home", tmp_path, fetch_max_bytes=1 << 20) as parts:
        if fetched_before:
            await parts.prepare(remote)
        (work.path / "large").write_bytes(os.urandom(3 << 20))
        work.commit("large")
        work.git("push", "--quiet", str(upstream.path), "main")
        with pytest.raises(FailedPrecondition) as failure:
            await parts.prepare(remote)
        assert failure.value.reason == "REMOTE_TOO_LARGE"
        assert "BOATYARD_GIT_FETCH_MAX_BYTES" in str(failure.value)
        assert list(parts.paths.scratch_root.iterdir()) == []
        mirror = parts.paths.mirror("repo-1")
        assert mirror.exists() is fetched_before
        assert [path.name for path in mirror.rglob("tmp_*")] == []
        with pytest.raises(FailedPrecondition) as failure:
            await parts.manager.clone(CloneSpec("clone-1", remote))
        assert failure.value.reason == "REMOTE_TOO_LARGE"
        assert list(parts.paths.clones.iterdir()) == []
