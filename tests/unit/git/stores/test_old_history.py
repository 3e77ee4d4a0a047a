"""What old tools wrote into histories that others build on is fetched and kept; what could do harm is not."""

from typing import Final

import pytest

from services.common.errors import FailedPrecondition
from services.git.model import Remote, StartPoint
from tests.kit.gitservice import GitParts
from tests.kit.repos import Repo

_WHO: Final = "Old <old@example.com> 1200000000 +0000"
_PEOPLE: Final = {
    "missingSpaceBeforeEmail": "Old<old@example.com> 1200000000 +0000",
    "missingNameBeforeEmail": "<old@example.com> 1200000000 +0000",
    "badName": "O>ld <old@example.com> 1200000000 +0000",
    "missingEmail": "Old 1200000000 +0000",
    "badEmail": "Old <old<@example.com> 1200000000 +0000",
    "badEmail-open": "Old <old@example.com 1200000000 +0000",
    "zeroPaddedDate": "Old <old@example.com> 01200000000 +0000",
    "badDateOverflow": "Old <old@example.com> 99999999999999999999999 +0000",
    "badDateOverflow-negative": "Old <old@example.com> -5 +0000",
    "badDate": "Old <old@example.com> yesterday +0000",
    "badDate-no-zone": "Old <old@example.com> 1200000000",
    "missingSpaceBeforeDate": "Old <old@example.com>1200000000 +0000",
    "badTimezone": "Old <old@example.com> 1200000000 +051800",
}
_HEADERS: Final = {name: f"author {who}\ncommitter {who}\n\nold\n" for name, who in _PEOPLE.items()} | {
    "multipleAuthors": f"author {_WHO}\nauthor {_WHO}\ncommitter {_WHO}\n\nold\n",
    "missingAuthor": f"committer {_WHO}\n\nold\n",
    "missingAuthor-order": f"committer {_WHO}\nauthor {_WHO}\n\nold\n",
    "missingCommitter": f"author {_WHO}\n\nold\n",
    "nulInCommit": f"author {_WHO}\ncommitter {_WHO}\n\no\0ld\n",
}
"""By git's name of the mistake: a commit from its author's line on."""


def raw(repo: Repo, kind: str, content: bytes) -> str:
    return repo.git("hash-object", "-w", "-t", kind, "--literally", "--stdin", stdin=content)


def entry(repo: Repo, mode: str, name: str, revision: str) -> bytes:
    return f"{mode} {name}\0".encode() + bytes.fromhex(repo.git("rev-parse", revision))


def odd_trees(repo: Repo) -> dict[str, bytes]:
    readme, code = "main:README", "main:src/main.py"
    return {
        "zeroPaddedFilemode": entry(repo, "100644", "a", readme) + entry(repo, "040000", "d", "main:src"),
        "badFilemode": entry(repo, "100664", "a", readme),
        "treeNotSorted": entry(repo, "100644", "b", readme) + entry(repo, "100644", "a", code),
    }


def harmful_trees(repo: Repo) -> dict[str, bytes]:
    readme = "main:README"
    modules = raw(repo, "blob", b'[submodule "../../x"]\n\tpath = x\n\turl = https://example.com/x\n')
    return {
        "hasDotgit": entry(repo, "100644", ".git", readme),
        "hasDotdot": entry(repo, "100644", "..", readme),
        "duplicateEntries": entry(repo, "100644", "a", readme) * 2,
        "fullPathname": entry(repo, "100644", "a/b", readme),
        "gitmodulesName": entry(repo, "100644", ".gitmodules", modules),
        "gitmodulesSymlink": entry(repo, "120000", ".gitmodules", readme),
    }


def branch(repo: Repo, name: str, tree: str, headers: str) -> str:
    """Make a branch whose second commit is odd, and whose last is not; return the last."""
    first = f"tree {tree}\nparent {repo.head('main')}\n{headers}".encode()
    odd = raw(repo, "commit", first)
    top = f"tree {repo.git('rev-parse', 'main^{tree}')}\nparent {odd}\nauthor {_WHO}\ncommitter {_WHO}\n\nnew\n"
    commit_id = raw(repo, "commit", top.encode())
    repo.git("update-ref", f"refs/heads/{name}", commit_id)
    return commit_id


async def test_a_history_with_mistakes_of_old_tools_is_fetched(parts: GitParts, remote: Remote, upstream: Repo) -> None:
    plain = upstream.git("rev-parse", "main^{tree}")
    tops = {name: branch(upstream, name, plain, headers) for name, headers in _HEADERS.items()}
    for name, tree in odd_trees(upstream).items():
        good = f"author {_WHO}\ncommitter {_WHO}\n\nold\n"
        tops[name] = branch(upstream, name, raw(upstream, "tree", tree), good)
    tagged = f"object {tops['badDate']}\ntype commit\ntag old\ntagger Old<old@example.com> 1200000000 +0000\n\nold\n"
    upstream.git("update-ref", "refs/tags/old", raw(upstream, "tag", tagged.encode()))
    await parts.prepare(remote)
    mirror = Repo(parts.paths.mirror(remote.repository_id))
    assert {name: mirror.head(f"refs/heads/{name}") for name in tops} == tops
    assert (await parts.prepare(remote, StartPoint(b"old"))).commit_id == tops["badDate"]


@pytest.mark.parametrize(
    "name", ["hasDotgit", "hasDotdot", "duplicateEntries", "fullPathname", "gitmodulesName", "gitmodulesSymlink"]
)
async def test_a_history_with_a_harmful_tree_is_refused(
    parts: GitParts, remote: Remote, upstream: Repo, name: str
) -> None:
    tree = raw(upstream, "tree", harmful_trees(upstream)[name])
    branch(upstream, "harm", tree, f"author {_WHO}\ncommitter {_WHO}\n\nold\n")
    with pytest.raises(FailedPrecondition, match=name):
        await parts.prepare(remote)


async def test_a_result_keeps_the_commits_of_an_agent_that_builds_on_old_history(
    parts: GitParts, remote: Remote
) -> None:
    workspace = parts.workspace(await parts.prepare(remote))
    agent = workspace.agent
    tree = agent.git("rev-parse", "HEAD^{tree}")
    agent.git("update-ref", "refs/heads/main", agent.head())
    agent.git("reset", "--quiet", "--hard", branch(agent, "odd", tree, _HEADERS["missingSpaceBeforeEmail"]))
    agent.commit("more", {"more": "1"})
    taken = await parts.manager.take_result(remote.repository_id, "result-1", workspace.take_spec())
    assert taken.agent_commits == 3
    assert (await parts.prepare(remote, StartPoint(b"", taken.commit_id))).commit_id == taken.commit_id
