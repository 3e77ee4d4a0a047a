"""Finds the files of a tree whose content is in Git LFS, and makes git take that content for what its index has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.git.bases.racy_index import BY_TIME_AND_SIZE
from services.git.gitcmd import Command, Git, Invocation
from services.git.pointers import POINTER_BYTES, Pointer, batch_contents, parse_pointer

_REGULAR: Final = {b"100644": False, b"100755": True}
_LISTING_BYTES: Final = 256 << 20
_HEADER_BYTES: Final = 128

_PRINT: Final = r"printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n' $h $n"
# Both read standard input once: a content may be larger than memory. Git takes `%%` for `%`, and `%f` for a path.
_HASH: Final = (
    "r=$({ { tee /dev/fd/5 | wc -c >&4; } 5>&1 | sha256sum >&4; } 4>&1) || exit 1;"
    " for w in $r; do case $w in -) ;;"
    f" {'?' * 64}) h=$w ;; *) n=$w ;; esac; done; {_PRINT}"
)
# Keeps the content where the program of Git LFS would. What is a pointer already stays one, and so does nothing.
_KEEP: Final = (
    "d=$(git rev-parse --git-dir)/lfs;"
    ' { mkdir -p "$d/tmp" && t=$(mktemp "$d/tmp/XXXXXXXX"); } 2> /dev/null || t=$(mktemp) || exit 1;'
    ' cat > "$t" || exit 1; n=$(wc -c < "$t");'
    f' if [ "$n" -le {POINTER_BYTES} ] && head -n 1 "$t" | grep -qx "version https://git-lfs.github.com/spec/v1";'
    ' then cat "$t"; elif [ "$n" -gt 0 ]; then h=$(sha256sum < "$t"); h=${h%  -};'
    ' p="$d/objects/$(printf %.2s "$h")/$(printf %.4s "$h" | tail -c 2)";'
    f' mkdir -p "$p" 2> /dev/null && mv "$t" "$p/$h"; {_PRINT}; fi; rm -f "$t"'
)


_CLEAN: Final = "filter.lfs.clean"


@dataclass(frozen=True, slots=True)
class LfsFile:
    """A file that is in Git LFS.

    A pointer that is not `is_usual` has extensions, or is otherwise not what Git LFS makes of the content today.
    """

    pointer: Pointer
    is_executable: bool
    is_usual: bool = True


async def find_lfs_files(git: Git, git_dir: Path, scratch: Path) -> dict[bytes, LfsFile]:
    """Return the files in an index that .gitattributes gives to Git LFS, and that are its pointers.

    `scratch` is a directory to write in.
    """
    inside = Invocation(git_dir=git_dir, output_limit=_LISTING_BYTES)
    listing = (await git.run(Command("ls-files", ("-z", "--stage")), inside)).stdout
    records = [(path, facts.split(b" ")) for facts, _, path in (each.partition(b"\t") for each in listing.split(b"\0"))]
    entries = {path: (facts[0], facts[1]) for path, facts in records if path}
    asking = Command("check-attr", ("-z", "--stdin", "--cached"), ("filter",))
    fields = (await git.run(asking, _given(inside, scratch, entries, b"\0"))).stdout.split(b"\0")
    paths = [path for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == b"lfs"]
    regular = {path: entries[path] for path in paths if entries[path][0] in _REGULAR}
    small = await _small(git, inside, scratch, sorted({object_id for _, object_id in regular.values()}))
    return {
        path: file
        for path, (mode, object_id) in sorted(regular.items())
        if (file := _lfs_file(small.get(object_id, b""), is_executable=_REGULAR[mode])) is not None
    }


def _lfs_file(content: bytes, *, is_executable: bool) -> LfsFile | None:
    pointer = parse_pointer(content)
    return LfsFile(pointer, is_executable, is_usual=pointer.text == content) if pointer else None


async def _small(git: Git, inside: Invocation, scratch: Path, object_ids: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the contents of those of the objects that are small enough for pointers."""
    sizes = Command("cat-file", ("--batch-check=%(objectname) %(objectsize)",))
    lines = (await git.run(sizes, _given(inside, scratch, object_ids, b"\n"))).stdout.splitlines()
    small = [line.split()[0] for line in lines if int(line.split()[1]) <= POINTER_BYTES]
    if not small:
        return {}
    contents = Command("cat-file", ("--batch=%(objectsize)",))
    limit = len(small) * (POINTER_BYTES + _HEADER_BYTES)
    answer = (await git.run(contents, replace(_given(inside, scratch, small, b"\n"), output_limit=limit))).stdout
    return dict(zip(small, batch_contents(answer), strict=True))


async def take_contents(git: Git, inside: Invocation, paths: Iterable[bytes], scratch: Path) -> None:
    """Make an index take the contents of files for the pointers that it has. Each is read once."""
    await _configure(git, inside, {_CLEAN: _HASH, "filter.lfs.required": "true"})
    await git.run(Command("update-index", ("-z", "--stdin")), _given(inside, scratch, paths, b"\0"))


async def keep_for_agents(git: Git, inside: Invocation) -> None:
    """Make git in a tree, the agent's, write pointers for such files, and keep their contents, without Git LFS.

    It shall not read, and keep, each of them once because files have another owner in a sandbox.
    """
    await _configure(git, inside, {_CLEAN: _KEEP, "filter.lfs.required": "false", **BY_TIME_AND_SIZE})


async def _configure(git: Git, inside: Invocation, config: Mapping[str, str]) -> None:
    for key, value in config.items():
        await git.run(Command("config", (f"--file={inside.git_dir}/config",), (key, value)))


def _given(inside: Invocation, scratch: Path, lines: Iterable[bytes], end: bytes) -> Invocation:
    """Return the invocation with lines to read, in a file."""
    file = scratch / "lines"
    file.write_bytes(b"".join(line + end for line in lines))
    return replace(inside, stdin_file=file)
