"""Whatever an agent plants in its working copy, no command of its own runs with our rights.

Each plant is a command that would leave a canary outside of the tree. That the plants are no duds is shown by running
git on them as nobody should: there the canaries appear.
"""

import contextlib
import os
import struct
import subprocess
from collections.abc import Callable, Collection, Iterable
from hashlib import sha1
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.common.errors import ServiceError
from services.common.ids import new_id
from services.git.model import ResultCommit, SnapshotSpec, WorkingTree
from tests.kit.gitservice import SIGNATURE, GitParts, Workspace
from tests.kit.repos import Repo

Plant = Callable[[Repo, Path], None]

HOOKS = [
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-receive",
    "post-rewrite",
    "post-update",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "pre-receive",
    "prepare-commit-msg",
    "proc-receive",
    "push-to-checkout",
    "reference-transaction",
    "sendemail-validate",
    "update",
]


def script(path: Path, canary: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch {canary}\n")
    path.chmod(0o755)


def config(*settings: tuple[str, str]) -> Plant:
    """Plant settings; `{evil}` is a command that leaves a canary and hands its input on."""

    def plant(agent: Repo, canary: Path) -> None:
        for key, value in settings:
            agent.git("config", "--add", key, value.format(evil=f"touch {canary}; cat", canary=canary))

    return plant


def filtered(attributes: str, *settings: tuple[str, str], info: bool = False) -> Plant:
    def plant(agent: Repo, canary: Path) -> None:
        config(*settings)(agent, canary)
        target = agent.path / ".git" / "info" / "attributes" if info else agent.path / ".gitattributes"
        target.parent.mkdir(exist_ok=True)
        target.write_text(attributes)

    return plant


def hooks(agent: Repo, canary: Path) -> None:
    for name in HOOKS:
        script(agent.path / ".git" / "hooks" / name, canary)


def signer(agent: Repo, canary: Path) -> None:
    script(agent.path / "sign", canary)
    program = str(agent.path / "sign")
    config(
        ("gpg.program", program), ("commit.gpgSign", "true"), ("gpg.ssh.program", program), ("log.showSignature", "1")
    )(agent, canary)


def hooks_elsewhere(agent: Repo, canary: Path) -> None:
    for name in HOOKS:
        script(agent.path / "innocent" / name, canary)
    agent.git("config", "core.hooksPath", "innocent")


def evil_config(canary: Path) -> str:
    return f'[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "touch {canary};:"\n'


def include(agent: Repo, canary: Path) -> None:
    (agent.path / "more").write_text(evil_config(canary))
    agent.git("config", "include.path", "../more")


def include_if(agent: Repo, canary: Path) -> None:
    (agent.path / "more").write_text(evil_config(canary))
    agent.git("config", "includeIf.gitdir:/**.path", "../more")


def worktree_config(agent: Repo, canary: Path) -> None:
    agent.git("config", "extensions.worktreeConfig", "true")
    agent.git("config", "core.repositoryFormatVersion", "1")
    (agent.path / ".git" / "config.worktree").write_text(evil_config(canary))


def common_directory(agent: Repo, canary: Path) -> None:
    other = Repo.init(agent.path / "other")
    other.commit("theirs", {"file": "x"})
    (other.path / ".git" / "config").write_text(evil_config(canary))
    (agent.path / ".git" / "commondir").write_text("../other/.git\n")


def git_file(agent: Repo, canary: Path) -> None:
    (agent.path / ".git").rename(agent.path / "hidden")
    with (agent.path / "hidden" / "config").open("a") as file:
        file.write(evil_config(canary))
    (agent.path / ".git").write_text("gitdir: hidden\n")


def git_link(agent: Repo, canary: Path) -> None:
    git_file(agent, canary)
    (agent.path / ".git").unlink()
    (agent.path / ".git").symlink_to("hidden")


def git_link_outside(agent: Repo, canary: Path) -> None:
    outside = Repo.init(canary.parent / "outside")
    outside.commit("theirs", {"secret": "s3cret"})
    (outside.path / ".git" / "config").write_text(evil_config(canary))
    (agent.path / ".git").rename(agent.path / "was")
    (agent.path / ".git").symlink_to(outside.path / ".git")


def git_is_huge(agent: Repo, canary: Path) -> None:
    with (agent.path / ".git" / "index").open("r+b") as file:
        file.truncate(1 << 32)
    with (agent.path / ".git" / "config").open("ab") as file:
        file.truncate(1 << 30)


def git_is_devices(agent: Repo, canary: Path) -> None:
    for name in ("index", "config", "packed-refs"):
        (agent.path / ".git" / name).unlink(missing_ok=True)
        (agent.path / ".git" / name).symlink_to("/dev/zero")


def nested(agent: Repo, canary: Path) -> None:
    inner = Repo.init(agent.path / "vendor" / "inner")
    inner.commit("theirs", {"file": "x"})
    (inner.path / ".git" / "config").write_text(evil_config(canary))
    hooks(inner, canary)
    agent.git("update-index", "--add", "--cacheinfo", f"160000,{inner.head()},vendor/inner")


def submodule(url: str, update: str = "checkout", path: str = "sub") -> Plant:
    def plant(agent: Repo, canary: Path) -> None:
        filled = url.format(canary=canary)
        (agent.path / ".gitmodules").write_text(
            f'[submodule "sub"]\n\tpath = {path}\n\turl = {filled}\n\tupdate = {update.format(canary=canary)}\n'
        )
        agent.git("config", "submodule.sub.url", filled)
        agent.git("config", "submodule.sub.update", update.format(canary=canary))
        agent.git("config", "submodule.recurse", "true")
        agent.git("update-index", "--add", "--cacheinfo", f"160000,{agent.head()},sub")
        (agent.path / "sub").mkdir()

    return plant


def bad_index(*names: bytes) -> Plant:
    """An index of names that git itself would never write."""

    def plant(agent: Repo, canary: Path) -> None:
        blob = bytes.fromhex(agent.git("rev-parse", "HEAD:README"))
        entries = b""
        for name in sorted(names):
            entry = (
                struct.pack(">10I", 0, 0, 0, 0, 0, 0, 0o100644, 0, 0, 0) + blob + struct.pack(">H", len(name)) + name
            )
            entries += entry + b"\0" * (8 - len(entry) % 8)
        content = b"DIRC" + struct.pack(">II", 2, len(names)) + entries
        (agent.path / ".git" / "index").write_bytes(content + sha1(content, usedforsecurity=False).digest())

    return plant


def replaced(agent: Repo, canary: Path) -> None:
    other = agent.git("commit-tree", "-m", "another", agent.git("mktree"))
    agent.git("replace", "HEAD", other)
    grafts = agent.path / ".git" / "info" / "grafts"
    grafts.parent.mkdir(exist_ok=True)
    grafts.write_text(f"{agent.git('--no-replace-objects', 'rev-parse', 'HEAD')}\n")


def corrupt_objects(agent: Repo, canary: Path) -> None:
    head = agent.commit("mine", {"deep/file": os.urandom(2000)})
    agent.git("repack", "-q", "-d")
    for pack in (agent.path / ".git" / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 0xFF
        pack.write_bytes(content)
    assert head


def alternates(agent: Repo, canary: Path) -> None:
    secret = Repo.init(canary.parent / "secret")
    commit = secret.commit("unpublished", {"secret": "s3cret"})
    with (agent.path / ".git" / "objects" / "info" / "alternates").open("a") as file:
        file.write(f"{secret.path}/.git/objects\n")
    (agent.path / ".git" / "refs" / "heads" / "main").write_text(f"{commit}\n")


def odd_refs(agent: Repo, canary: Path) -> None:
    head = agent.head()
    names = (
        "refs/heads/../../../../x",
        "refs/heads/-rf",
        "refs/heads/a b",
        f"refs/heads/$(touch {canary})",
        "--exec=x",
    )
    (agent.path / ".git" / "packed-refs").write_text("".join(f"{head} {name}\n" for name in names))
    (agent.path / ".git" / "HEAD").write_text(f"ref: refs/heads/$(touch {canary})\n")


def promisor(agent: Repo, canary: Path) -> None:
    config(
        ("remote.evil.url", "ext::touch {canary}"), ("remote.evil.promisor", "true"),
        ("extensions.partialClone", "evil"), ("core.repositoryFormatVersion", "1"), ("protocol.ext.allow", "always"),
    )(agent, canary)  # fmt: skip
    tree = agent.git("mktree", "--missing", stdin=f"100644 blob {'ab' * 20}\tmissing\n".encode())
    agent.git("update-ref", "HEAD", agent.git("commit-tree", "-p", "HEAD", "-m", "misses a file", tree))


CONFIGS: dict[str, Plant] = {
    "hooks of every kind": hooks,
    "core.fsmonitor": config(("core.fsmonitor", "{evil}")),
    "filter clean and smudge": filtered(
        "* filter=evil\n", ("filter.evil.clean", "{evil}"), ("filter.evil.smudge", "{evil}")
    ),
    "filter process": filtered(
        "*.py filter=long\n", ("filter.long.process", "{evil}"), ("filter.long.required", "true"), info=True
    ),
    "textconv": filtered("* diff=evil\n", ("diff.evil.textconv", "{evil}")),
    "external diff": config(("diff.external", "{evil}"), ("diff.evil.command", "{evil}")),
    "merge driver": config(("merge.evil.driver", "{evil}"), ("mergetool.evil.cmd", "{evil}")),
    "credential.helper": config(("credential.helper", "!{evil}"), ("core.askPass", "{evil}")),
    "core.sshCommand": config(("core.sshCommand", "{evil}"), ("core.gitProxy", "{evil}"), ("ssh.variant", "ssh")),
    "insteadOf": config(
        ("url.ext::touch {canary}.insteadOf", "https://"), ("url.ext::touch {canary}.pushInsteadOf", "/")
    ),
    "remote programs": config(
        ("remote.origin.uploadpack", "{evil}"),
        ("remote.origin.receivepack", "{evil}"),
        ("remote.origin.vcs", "evil"),
        ("uploadpack.packObjectsHook", "{evil}"),
    ),
    "include": include,
    "includeIf": include_if,
    "editors": config(("core.editor", "{evil}"), ("sequence.editor", "{evil}")),
    "gpg": signer,
    "pagers": config(("core.pager", "{evil}"), ("pager.status", "{evil}"), ("interactive.diffFilter", "{evil}")),
    "aliases": config(("alias.status", "!{evil}"), ("alias.add", "!{evil}"), ("alias.commit", "!{evil}")),
    "core.alternateRefsCommand": config(("core.alternateRefsCommand", "{evil}")),
    "protocol.ext.allow": config(("protocol.ext.allow", "always"), ("remote.evil.url", "ext::touch {canary}")),
    "trailers": config(("trailer.x.command", "{evil}"), ("trailer.x.cmd", "{evil}"), ("trailer.ifmissing", "add")),
    "maintenance": config(("gc.auto", "1"), ("gc.recentObjectsHook", "{evil}"), ("maintenance.auto", "true")),
}
OTHERS: dict[str, Plant] = {
    "core.hooksPath": hooks_elsewhere,
    "core.worktree": config(("core.worktree", "/"), ("core.bare", "true")),
    "worktree config": worktree_config,
    "commondir": common_directory,
    "a file that leads to the git directory": git_file,
    "a link to the git directory": git_link,
    "a link out of the tree": git_link_outside,
    "a huge git directory": git_is_huge,
    "devices": git_is_devices,
    "a nested repository": nested,
    "a submodule by ext": submodule("ext::touch% {canary}"),
    "a submodule above": submodule("../../../escape", path="../../escape"),
    "an index with .git": bad_index(b".git/config", b".git/hooks/pre-commit", b"a/.git/config"),
    "an index with odd .git": bad_index(b".GIT/config", b"git~1/config", b".git /x", b".g\xe2\x80\x8cit/config"),
    "an index that climbs": bad_index(b"../escape", b"/etc/escape", b"a/../../escape", b"a//b", b"./x"),
    "replace refs and grafts": replaced,
    "corrupt objects": corrupt_objects,
    "alternates": alternates,
    "refs with odd names": odd_refs,
    "a promisor that fetches lazily": promisor,
}
PLANTS = CONFIGS | OTHERS
# What git runs, given the chance: the plants are no duds.
ARMED = {
    "hooks of every kind": "commit --quiet --allow-empty --message=x",
    "core.fsmonitor": "status",
    "filter clean and smudge": "add --all",
    "textconv": "diff",
    "external diff": "diff",
    "include": "status",
    "includeIf": "status",
    "gpg": "commit --quiet --allow-empty --message=x",
    "protocol.ext.allow": "ls-remote evil",
    "core.hooksPath": "commit --quiet --allow-empty --message=x",
    "worktree config": "status",
    "commondir": "status",
    "a file that leads to the git directory": "status",
    "a link to the git directory": "status",
    "a link out of the tree": "status",
    "a nested repository": "status",
    "a promisor that fetches lazily": "checkout --quiet --force HEAD",
}


# Ways that differ most; the others are tried in the deeper suite.
SOON = (
    "core.hooksPath", "worktree config", "a file that leads to the git directory", "a link out of the tree",
    "a nested repository", "an index with .git", "corrupt objects", "alternates",
)  # fmt: skip


def soon_or_later(names: Iterable[str], soon: Collection[str]) -> list[object]:
    return [name if name in soon else pytest.param(name, marks=pytest.mark.slow) for name in names]


async def do_everything(parts: GitParts, workspace: Workspace) -> ResultCommit:
    """What the service may be asked to do with a tree; only taking it must work out."""
    manager, tree = parts.manager, workspace.tree
    for call in (
        lambda: manager.status(tree),
        lambda: manager.head(tree),
        lambda: manager.create_branch(tree, b"work", ""),
        lambda: manager.stage_all(tree),
        lambda: manager.commit(tree, "mine", SIGNATURE),
        lambda: manager.status(tree),
    ):
        with contextlib.suppress(ServiceError):
            await call()
    result = await manager.take_result("repo-1", "result-1", workspace.take_spec())
    kept = await manager.snapshot_tree(SnapshotSpec(new_id("s"), "repo-1", tree, workspace.base.commit_id, "kept"))
    store = Repo(parts.paths.result_store("repo-1"))
    assert store.git("ls-tree", "-r", kept.commit_id) == store.git("ls-tree", "-r", result.commit_id)
    return result


async def check(parts: GitParts, workspace: Workspace, canary: Path) -> None:
    workspace.agent.write({"the/work": "is kept\n"})
    result = await do_everything(parts, workspace)
    store = Repo(parts.paths.result_store("repo-1"))
    assert store.git("show", f"{result.commit_id}:the/work") == "is kept"
    assert store.head(f"{result.commit_id}~{1 + result.agent_commits if result.changed else 0}")
    assert store.git("merge-base", workspace.base.commit_id, result.commit_id) == workspace.base.commit_id
    names = store.git("ls-tree", "-r", "--name-only", result.commit_id).lower().split("\n")
    assert not [name for name in names if {".git", "..", "git~1"} & set(name.split("/"))]
    assert "s3cret" not in store.git("log", "-p", "--no-textconv", result.commit_id)
    assert not canary.exists()
    assert not (canary.parent / "escape").exists()


async def test_none_of_the_settings_that_run_commands_does(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    for plant in CONFIGS.values():
        plant(workspace.agent, canary)
    await check(shared_parts, workspace, canary)


@pytest.mark.slow
@pytest.mark.parametrize("name", soon_or_later(OTHERS, SOON))
async def test_nothing_that_stands_in_a_gits_place_runs_commands(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    OTHERS[name](workspace.agent, canary)
    await check(shared_parts, workspace, canary)


async def test_a_submodule_that_would_run_a_command_is_left_out(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path
) -> None:
    submodule("./here", update="!touch {canary}")(workspace.agent, tmp_path / "canary")
    result = await do_everything(shared_parts, workspace)
    (caveat,) = result.caveats
    assert (caveat.kind, caveat.paths) == (CaveatKind.REFUSED, (b".gitmodules",))
    assert "gitmodulesUpdate: disallowed" in caveat.detail
    assert ".gitmodules" not in Repo(shared_parts.paths.result_store("repo-1")).git("ls-tree", "-r", result.commit_id)
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
async def test_no_setting_runs_a_command(
    shared_parts: GitParts, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    CONFIGS[name](workspace.agent, canary)
    await check(shared_parts, workspace, canary)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARMED)
def test_the_plants_are_no_duds(workspace: Workspace, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    PLANTS[name](workspace.agent, canary)
    workspace.agent.write({"README": "changed\n"})
    subprocess.run(
        ["git", *ARMED[name].split()],
        cwd=workspace.agent.path,
        check=False,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b",
             "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b"},
    )  # fmt: skip
    assert canary.exists()


@pytest.mark.parametrize("name", soon_or_later([".git", ".git/HEAD", ".git/config", ".git/index"], [".git/HEAD"]))
async def test_a_pipe_in_a_gits_place_holds_nobody_up(
    shared_parts: GitParts, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("services.git.worktree.sandboxed.ANSWER_SECONDS", 1.0)
    path = workspace.agent.path / name
    if name == ".git":
        path.rename(workspace.agent.path / "was")
    else:
        path.unlink()
    os.mkfifo(path)
    workspace.agent.write({"the/work": "is kept\n"})
    if name != ".git/index":
        with pytest.raises(ServiceError) as failure:
            await shared_parts.manager.head(workspace.tree)
        assert failure.value.reason == "NOT_A_REPOSITORY"
    result = await shared_parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    store = Repo(shared_parts.paths.result_store("repo-1"))
    assert store.git("show", f"{result.commit_id}:the/work") == "is kept"


async def test_a_stray_tree_is_never_followed(shared_parts: GitParts, workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s3cret")
    (workspace.agent.path / "out").symlink_to(outside)
    (workspace.agent.path / "hole").symlink_to("/etc/passwd")
    result = await shared_parts.manager.take_result("repo-1", "result-1", workspace.take_spec())
    files = Repo(shared_parts.paths.result_store("repo-1")).files(result.commit_id)
    assert (files["out"], files["hole"]) == (str(outside), "/etc/passwd")
    swapped = WorkingTree(workspace.tree.path / "out", workspace.tree.read_only_paths)
    assert await shared_parts.manager.status(workspace.tree)
    with pytest.raises(ServiceError):
        await shared_parts.manager.status(swapped)
