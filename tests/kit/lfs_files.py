"""Repositories on this machine with files in Git LFS, whose contents lie where the client of Git LFS has them."""

from collections.abc import Mapping
from pathlib import Path

from services.git.pointers import Pointer
from tests.kit.lfs import pointer_to
from tests.kit.repos import Repo

RULES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"


def make_with_lfs(place: Path, name: str, contents: Mapping[str, bytes]) -> Repo:
    """Make a bare repository `name.git` below a directory, and a working one, `name`; return the bare one."""
    work = Repo.init(place / name)
    pointers = {path: pointer_to(content).text.decode() for path, content in contents.items()}
    work.commit("files", {".gitattributes": RULES, "README": name, **pointers})
    bare = work.bare_clone(place / f"{name}.git")
    (bare.path / "lfs" / "objects").mkdir(parents=True)
    for content in contents.values():
        put(bare, content)
    return bare


def put(bare: Repo, content: bytes) -> Path:
    """Put a content into a bare repository; return its file."""
    file = object_of(bare, pointer_to(content))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def object_of(bare: Repo, pointer: Pointer) -> Path:
    """Return where a bare repository has an object."""
    return bare.path / "lfs" / "objects" / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid
