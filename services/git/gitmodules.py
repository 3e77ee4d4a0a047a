"""What a `.gitmodules` file says of submodules, and whether that may be used: whoever can push has written it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

# Enough for thousands of submodules; a longer listing counts as one that git cannot read.
LISTING_BYTES: Final = 1 << 20
_SECTION: Final = b"submodule."
_NAME_BYTES: Final = 255
_URL_BYTES: Final = 4096
_PATH_BYTES: Final = 1000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Module:
    """An entry of `.gitmodules`: a name, where the submodule is in the tree, and its URL as it is written there."""

    name: str
    path: bytes
    url: str


def parse_modules(listing: bytes) -> dict[bytes, Module]:
    """Return what `git config --list -z` prints of a `.gitmodules`, by paths. The last of two values holds, as in git.

    What has no path is left out, and so is a URL that is too long to be one.
    """
    values: dict[bytes, dict[bytes, bytes]] = {}
    for record in listing.split(b"\0"):
        key, _, value = record.partition(b"\n")
        name, dot, variable = key.removeprefix(_SECTION).rpartition(b".")
        if key.startswith(_SECTION) and dot:
            values.setdefault(name, {})[variable] = value
    modules = (
        Module(_text(name), each[b"path"].rstrip(b"/"), _url(each))
        for name, each in values.items()
        if each.get(b"path", b"").rstrip(b"/")
    )
    return {module.path: module for module in modules}


def is_path_in_a_tree(path: bytes) -> bool:
    """True when a commit may have something at a path, which may also become an argument of git."""
    parts = path.split(b"/")
    return len(path) <= _PATH_BYTES and not path.startswith(b"-") and {b"", b".", b".."}.isdisjoint(parts)


def name_complaint(name: str, taken: Iterable[str]) -> str | None:
    """Return why no repository may be kept under this name, below `.git/modules`; None when it may.

    `taken` are the names beside it: a repository inside another one's directory could be that one's hooks.
    """
    parts = name.casefold().split("/")
    if len(name.encode(errors="replace")) > _NAME_BYTES or name.startswith("-") or _CONTROL.search(name):
        return "its name is not a usable one"
    if "\ufffd" in name or not {"", ".", "..", ".git"}.isdisjoint(parts):
        return "its name is not a usable one"
    for other in taken:
        inner, outer = sorted((parts, other.casefold().split("/")), key=len, reverse=True)
        if inner[: len(outer)] == outer:
            return f"its name is that of another one, {other}, or lies inside"
    return None


def absolute_url(url: str, parent: str) -> str | None:
    """Return the URL that one relative to its repository's, `parent`, stands for, as git resolves it.

    None when it leads above the server, or is empty.
    """
    if not url.startswith(("./", "../")):
        return url or None
    root, path, separator = _split(parent.rstrip("/"))
    while url.startswith(("./", "../")):
        if url.startswith("../"):
            if not path:
                return None
            path = path.rpartition("/")[0]
        url = url.partition("/")[2]
    return f"{root}{path}/{url}" if path or separator == "/" else f"{root}{url}"


def origin(url: str) -> str:
    """Return whose secrets a URL would be shown: scheme, user, host and port; empty for one on this machine."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "" if url.startswith("/") else f"ssh://{url.partition(':')[0].lower()}"
    return "" if scheme == "file" else f"{scheme}://{rest.partition('/')[0].lower()}"


def addresses(modules: Mapping[bytes, Module], parent: str) -> frozenset[str]:
    """Return the absolute URLs that a `.gitmodules` of the repository at `parent` names."""
    return frozenset(url for module in modules.values() if (url := absolute_url(module.url, parent)))


def _split(url: str) -> tuple[str, str, str]:
    """Return what `..` cannot leave, the path after it, and what separates the two."""
    scheme, separator, rest = url.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host}", f"{slash}{path}", "/"
    if url.startswith("/"):
        return "", url, "/"
    host, _, path = url.partition(":")
    return f"{host}:", path, ":"


def _url(values: Mapping[bytes, bytes]) -> str:
    url = values.get(b"url", b"")
    return _text(url) if len(url) <= _URL_BYTES else ""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
