"""Decides which URLs may be stored for a repository, and by whom. The git service decides whether a URL may be *used*.

No complaint repeats the URL, so that a URL that was refused for its password does not appear in a log.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.common.errors import PermissionDenied
from services.gateway.values.principal import current_principal

_SCHEMES: Final = "must be https, ssh (or user@host:path), or an absolute file path"
_NO_SECRETS: Final = "must not contain a user name or a password: give a token in its own field"
_SLASHES: Final = re.compile("/+")
_PORTS: Final = {"https": 443, "http": 80, "ssh": 22}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LABEL: Final = "[A-Za-z0-9_-]{1,63}"
_HOST: Final = re.compile(rf"(?![_-]){_LABEL}(\.{_LABEL})*(?<![_-])")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# user@host:path, as git reads it: no slash before the first colon.
_SCP: Final = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:]+):(?P<path>[^:-].*)")


def url_complaint(url: str) -> str | None:
    """Return why this cannot be a repository's URL; None if it can."""
    rules = (
        (_CONTROL.search(url), "must not contain control characters"),
        (" " in url and not url.startswith("/"), "must not contain spaces, unless it is a path"),
    )
    if complaint := _first_broken(rules):
        return complaint
    if url.startswith("/"):
        return None
    return _parsed_complaint(url) if "://" in url else _scp_complaint(url)


def scheme_of(url: str) -> str:
    """Return how the remote of a well-formed URL is reached: by `https`, `http`, `ssh` or `file`."""
    if url.startswith("/"):
        return "file"
    return urlsplit(url).scheme if "://" in url else "ssh"


def normal_form(url: str) -> str:
    """Return the same text for all URLs by which git asks one server for one repository in one way.

    The case of a host, a default port, `.git` and slashes at the end make no difference. Users of ssh have directories
    of their own, in which user@host:path is, unlike ssh://user@host/path; so has the account of the cell, which is
    meant where there is no user. For `git`, whose view servers make up, the two are one. A path on the machine is what
    it is, but for `.git` inside of it, and so is what is no URL.
    """
    if url_complaint(url) is not None:
        return url
    if scheme_of(url) == "file":
        path = _SLASHES.sub("/", url.removeprefix("file://"))
        return f"file:{path.rstrip('/').removesuffix('/.git')}"
    scheme, user, host, port, path = _parts(url)
    is_absolute, path = path.startswith("/"), _SLASHES.sub("/", path).strip("/").removesuffix(".git").rstrip("/")
    login = "" if scheme != "ssh" or user == "git" else f"{user}@"
    top = "/" if login and is_absolute else ""
    return f"{scheme}://{login}{host.lower()}:{port or _PORTS.get(scheme, 0)}/{top}{path}"


def _parts(url: str) -> tuple[str, str, str, int, str]:
    """Return the scheme, user, host, port (0: none) and path of a URL, also of user@host:path."""
    if "://" in url:
        parts = urlsplit(url)
        return parts.scheme, parts.username or "", parts.hostname or "", parts.port or 0, parts.path
    match = _SCP.fullmatch(url)
    return ("ssh", match["user"] or "", match["host"], 0, match["path"]) if match else ("ssh", "", "", 0, url)


def check_reach(url: str) -> None:
    """Raise PermissionDenied (PROJECT_NOT_ALLOWED) for a remote on the cell's machine and a token of some projects.

    Such a remote is reached with the rights of the cell's account, so it could be another project's.
    """
    if scheme_of(url) == "file" and current_principal().projects is not None:
        raise PermissionDenied(
            "a repository on the cell's machine is added by a token of all projects: this one is for some of them, and"
            " the path could lead to those of others",
            reason="PROJECT_NOT_ALLOWED",
            metadata={"needed_projects": "all"},
        )


def _first_broken(rules: Iterable[tuple[object, str]]) -> str | None:
    """Return the text of the first broken rule, of pairs (is it broken, its text); None if none is broken."""
    return next((text for broken, text in rules if broken), None)


def _parsed_complaint(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    has_secrets = parts.password is not None or (parts.username is not None and parts.scheme != "ssh")
    rules = [
        (has_secrets, _NO_SECRETS),
        (parts.query or parts.fragment, "must not contain a query or a fragment"),
        (not url.startswith(f"{parts.scheme}://"), "must have its scheme in lower case"),
    ]
    if parts.scheme == "file":
        rules += [(parts.netloc or not parts.path, "must be file:///absolute/path")]
    else:
        rules += [
            (parts.scheme not in {"https", "ssh"} and not _is_local_http(parts), _SCHEMES),
            (port == 0 or not _is_host(parts.hostname or ""), "names no host"),
            (parts.username is not None and not _USER.fullmatch(parts.username), "has a malformed user name"),
        ]
    return _first_broken(rules)


def _scp_complaint(url: str) -> str | None:
    if ":" in url.rpartition("@")[0]:
        return _NO_SECRETS
    match = _SCP.fullmatch(url)
    if match is None:
        return _SCHEMES
    if not _HOST.fullmatch(match["host"]) or (match["user"] is not None and not _USER.fullmatch(match["user"])):
        return "is not user@host:path"
    return None


def _is_local_http(parts: SplitResult) -> bool:
    """True for a server on this machine, whose traffic nobody can intercept; the git service accepts it in tests."""
    return parts.scheme == "http" and (parts.hostname == "localhost" or _is_loopback(parts.hostname or ""))


def _is_host(name: str) -> bool:
    return _HOST.fullmatch(name) is not None or _address(name) is not None


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
