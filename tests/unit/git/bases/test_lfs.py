"""Files of Git LFS have their contents in bases, where those can be had; where not, the base says why."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.common.caveats import CaveatKind
from services.git.pointers import Pointer
from services.git.remote import lfs_http
from tests.kit.githttp import Fault, git_server
from tests.kit.lfs import LfsServer, pointer_to
from tests.kit.served_lfs import CONTENTS, Served, read


async def test_files_have_their_contents(served: Served) -> None:
    base = await served.prepare()
    assert base.caveats == ()
    assert {path: read(base, path) for path in CONTENTS} == CONTENTS
    workspace = await served.parts.layered(base, mounted=False)
    listed = await workspace.agent(
        f"git status --porcelain; cat {' '.join(CONTENTS)} | sha256sum; test -x tool.bin; test ! -e .git/lfs"
    )
    assert listed == f"{pointer_to(b''.join(CONTENTS.values())).oid}  -\n"


@pytest.mark.slow
async def test_what_is_here_is_not_fetched_again(served: Served) -> None:
    first = await served.prepare()
    served.lfs.calls.clear()
    assert (await served.prepare()).layers == first.layers
    served.work.commit("more", {"c.bin": served.lfs.add(b"new" * 500).text.decode()})
    served.push()
    await served.prepare()
    assert (served.lfs.calls["batch"], served.lfs.calls["GET content"]) == (1, 1)


@pytest.mark.slow
async def test_what_several_want_at_once_is_fetched_once(served: Served) -> None:
    bases = await asyncio.gather(*(served.prepare() for _ in range(4)))
    assert {base.layers for base in bases} == {bases[0].layers}
    assert (served.lfs.calls["batch"], served.lfs.calls["GET content"]) == (1, len(CONTENTS))


@pytest.mark.slow
async def test_a_server_whose_contents_cannot_be_had_is_left_alone_soon(served: Served) -> None:
    more = {f"{number}.bin": served.lfs.add(os.urandom(9)).text.decode() for number in range(120)}
    served.work.commit("more", more)
    served.push()
    busy = Fault("GET /contents", 503)
    served.server.faults.append(busy)
    before = busy.times
    (caveat,) = (await served.prepare()).caveats
    assert (caveat.total_paths, served.lfs.calls["batch"]) == (len(CONTENTS) + len(more), 1)
    assert before - busy.times <= 3 * 7, "a few objects, three times each"


@pytest.mark.slow
async def test_a_pointer_that_lies_about_the_size_of_a_content_gets_none(served: Served) -> None:
    true = pointer_to(CONTENTS["a.bin"])
    lies = {f"{size}.bin": Pointer(true.oid, size).text.decode() for size in (1, true.size - 1, true.size + 1)}
    served.work.commit("lies", lies)
    served.push()
    for base in (await served.prepare(), await served.prepare()):  # the second has the content when it begins
        (caveat,) = base.caveats
        assert sorted(path.decode() for path in caveat.paths) == sorted(lies)
        assert read(base, "a.bin") == CONTENTS["a.bin"]


@pytest.mark.slow
async def test_what_git_would_find_changed_stays_a_pointer(served: Served) -> None:
    text = served.lfs.add(b"content").text.decode()
    odd_ones = {
        "extended.bin": text.replace("oid", f"ext-0-foo sha256:{'1' * 64}\noid"),
        "old.bin": text.replace("git-lfs.github.com", "hawser.github.com"),
        "unended.bin": text.rstrip(),
    }
    served.work.commit("odd", {**odd_ones, "usual.bin": text})
    served.push()
    base = await served.prepare()
    (caveat,) = base.caveats
    assert (sorted(path.decode() for path in caveat.paths), read(base, "usual.bin")) == (sorted(odd_ones), b"content")
    assert "not as Git LFS writes them" in caveat.detail
    workspace = await served.parts.layered(base, mounted=False)
    assert await workspace.agent("git status --porcelain") == ""


@pytest.mark.slow
async def test_pointers_are_what_a_policy_wants_or_a_server_has(served: Served) -> None:
    base = await served.prepare(git_lfs=False)
    assert [(each.kind, each.total_paths) for each in base.caveats] == [(CaveatKind.LFS_POINTERS, len(CONTENTS))]
    assert read(base, "a.bin") == pointer_to(CONTENTS["a.bin"]).text
    assert not served.lfs.calls


@dataclass(frozen=True)
class Case:
    """How a server fails; the files that are missing; and what is said of them. `tries` are calls for batches."""

    breaks: Callable[[Served], object]
    missing: tuple[str, ...]
    says: str = ""
    tries: int = 1
    more: tuple[Fault, ...] = field(default=())


ALL = tuple(sorted(CONTENTS))
A, B = (pointer_to(CONTENTS[path]).oid for path in ("a.bin", "deep/er/b.bin"))


def fault(at: str, does: int | str, **more: int) -> Callable[[Served], object]:
    return lambda served: served.server.faults.append(Fault(at, does, **more))


def odd(**attributes: object) -> Callable[[Served], object]:
    def change(served: Served) -> None:
        for name, value in attributes.items():
            setattr(served.lfs, name, value)

    return change


def answer_for(oid: str, href: str, headers: dict[str, str]) -> dict[str, object]:
    return {"oid": oid, "actions": {"download": {"href": href, "header": headers}}}


CASES = {
    "nothing": Case(lambda _: None, ()),
    "by login": Case(odd(by_login=True), ()),
    "busy once": Case(fault("batch", 429, times=1, retry_after=1), (), tries=1),
    "a fault once": Case(fault("batch", 503, times=1), ()),
    "broken off once": Case(fault("GET /contents", "cut", times=1), ()),
    "dropped once": Case(fault("GET /contents", "drop", times=1), ()),
    "expired once": Case(odd(expired=1), (), tries=2),
    "expired": Case(odd(expired=9), ALL, "has expired", tries=2),
    "one is not there": Case(lambda served: served.lfs.objects.pop(A), ("a.bin",), "does not exist (404)"),
    "one is lost": Case(
        lambda served: served.lfs.lost.update({A} if served.lfs.objects.pop(A) else ()),
        ("a.bin",),
        "answers 404",
    ),
    "another content": Case(
        lambda served: served.lfs.objects.update({A: os.urandom(5000)}), ("a.bin",), "not what its pointer names"
    ),
    "a longer content": Case(
        lambda served: served.lfs.objects.update({A: CONTENTS["a.bin"] * 2}), ("a.bin",), "not what its pointer names"
    ),
    "a shorter content": Case(
        lambda served: served.lfs.objects.update({B: CONTENTS["a.bin"][:9]}), ("deep/er/b.bin",), "not what its pointer"
    ),
    "no Git LFS": Case(fault("batch", 404), ALL, "no Git LFS", tries=0),
    "a page": Case(fault("batch", "page"), ALL, "as one of Git LFS", tries=0),
    "no rights": Case(fault("batch", 403), ALL, "returned error: 403", tries=0),
    "elsewhere": Case(odd(elsewhere="http://192.168.7.7:80"), ALL, "192.168.7.7"),
    "elsewhere in the cloud": Case(odd(elsewhere="https://169.254.169.254"), ALL, "not public"),
    "a file": Case(odd(elsewhere="file:///etc"), ALL, "must be https"),
    "no host": Case(odd(elsewhere="https://a..example"), ALL, "names no host"),
    "no host at all": Case(odd(elsewhere=f"https://{'a' * 64}.example"), ALL, "names no host"),
    "led nowhere": Case(fault("GET /contents", 302), ALL, "answers 302"),
    "unchanged": Case(fault("GET /contents", 304), ALL, "answers 304"),
    "a header that is none": Case(
        odd(answers={"objects": [answer_for(A, "https://10.0.0.1/", {"X": "\xe9", "Y": " y "})]}), ALL, "not public"
    ),
    "a code that is none": Case(
        odd(answers={"objects": [{"oid": A, "error": {"code": 10**99}}]}), ALL, "no reason given;"
    ),
    **{
        f"no address: {address!r}": Case(odd(elsewhere=address), ALL, "no URL")
        for address in ("https://[bad", "https://h/\ud800")
    },
    "led to no address": Case(fault("GET /contents", "//[bad"), ALL, "no URL"),
    "a header that HTTP has not": Case(odd(headers={"X-Name": "\u00e9\u20ac"}), ()),
    "led elsewhere": Case(fault("GET /contents", "https://10.0.0.1{path}"), ALL, "not public"),
    "another transfer": Case(odd(answers={"transfer": "tus"}), ALL, "another transfer"),
    "no list": Case(odd(answers={"objects": "x"}), ALL, "no list"),
    "an empty list": Case(odd(answers={"objects": [7, {"oid": 7}]}), ALL, "does not say where"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
async def test_what_cannot_be_had_is_said_and_the_rest_is_there(served: Served, name: str) -> None:
    case = CASES[name]
    case.breaks(served)
    base = await served.prepare()
    missing = {path.decode() for each in base.caveats for path in each.paths}
    assert missing == set(case.missing)
    assert all(case.says in each.detail for each in base.caveats)
    assert "the-token" not in str(base.caveats)
    assert "signature" not in str(base.caveats)
    assert served.lfs.calls["batch"] == case.tries
    for path, content in CONTENTS.items():
        assert read(base, path) == (pointer_to(content).text if path in case.missing else content)


@pytest.mark.slow
async def test_no_server_has_connections_kept_to_more_and_more_others(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lfs_http, "_MOST_HOSTS", 1)
    (tmp_path / "other").mkdir()
    with git_server(tmp_path / "other", "another-token") as other:
        other.lfs, other.records_processes = served.lfs, False
        served.lfs.elsewhere = f"http://127.0.0.1:{other.port}"
        base = await served.prepare()
    assert "more than 1 other servers" in str(base.caveats)
    assert not served.lfs.calls["GET content"]


@pytest.mark.slow
async def test_only_its_own_server_sees_the_token(served: Served, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with git_server(tmp_path / "other", "another-token") as other:
        other.lfs, other.records_processes = served.lfs, False
        served.lfs.elsewhere = f"http://127.0.0.1:{other.port}"
        base = await served.prepare()
    assert base.caveats == ()
    assert set(served.lfs.logins_at_contents) == {None}


@pytest.mark.slow
async def test_what_was_missing_is_fetched_by_the_next(served: Served) -> None:
    content = served.lfs.objects.pop(A)
    first = await served.prepare()
    assert read(first, "deep/er/b.bin") == CONTENTS["deep/er/b.bin"]
    served.lfs.objects[A] = content
    second = await served.prepare()
    assert (second.caveats, read(second, "a.bin")) == ((), content)


@pytest.mark.slow
async def test_an_address_that_only_a_branch_names_is_not_asked(served: Served, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with git_server(tmp_path / "other", "another-token") as other:
        other.lfs, other.records_processes = LfsServer(), False
        config = f"[lfs]\n\turl = {other.url('app')}/info/lfs\n"
        served.work.commit("elsewhere", {".lfsconfig": config})
        served.work.git("push", "--quiet", str(served.server.root / "app.git"), "HEAD:refs/heads/branch")
        assert (await served.prepare(revision=b"branch")).caveats == ()
        assert not other.lfs.calls
        served.push()
        served.work.commit("a new one", {"c.bin": pointer_to(b"new").text.decode()})
        served.push()
        (caveat,) = (await served.prepare()).caveats  # which the default branch names, and which sees no token
        assert (caveat.paths, other.lfs.calls["batch"]) == ((b"c.bin",), 1)
        assert "returned error: 401" in caveat.detail
