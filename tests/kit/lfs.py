"""A server of Git LFS beside a git server: batches, and the basic transfer, as the specification has them.

Objects are got and put at addresses that are signed, as on servers that leave contents to a store elsewhere.
"""

import hashlib
import json
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from services.git.pointers import Pointer

MEDIA_TYPE: Final = "application/vnd.git-lfs+json"
_OID: Final = re.compile("[0-9a-f]{64}")


class Admits(Protocol):
    """The git server that it is beside."""

    @property
    def scheme(self) -> str: ...
    @property
    def port(self) -> int: ...
    def admits(self, header: str | None) -> bool: ...


@dataclass
class LfsServer:
    """Objects by their ids, and what is odd about this server.

    `expires` is how long what it signs is good for; the first `expired` signatures are good for nothing. `elsewhere`
    takes the place of its own scheme, host and port in the addresses that it names. `refused` are objects that it does
    not take, with a reason. What it has `lost` it offers, and does not have. `without_verify`: it wants no call
    after an upload. `by_login`: it signs nothing, and wants the caller's own login for contents too. `headers` are
    more that it wants at contents.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    expires: timedelta = timedelta(minutes=10)
    expired: int = 0
    elsewhere: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    answers: dict[str, Any] = field(default_factory=dict)
    without_verify: bool = False
    by_login: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    verified: set[str] = field(default_factory=set)
    logins_at_contents: list[str | None] = field(default_factory=list)
    _signatures: dict[str, datetime] = field(default_factory=dict)

    def add(self, content: bytes) -> Pointer:
        """Have an object; return its pointer."""
        pointer = pointer_to(content)
        self.objects[pointer.oid] = content
        return pointer

    @staticmethod
    def serves(path: str) -> bool:
        """True for what is no request of git's."""
        return "/info/lfs/" in path or path.startswith("/contents/")

    def answer(self, server: Admits, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Return a status and a body."""
        headers = {name.lower(): value for name, value in headers.items()}
        if path.startswith("/contents/"):
            return self._content(server, method, path, headers, body)
        self.calls[path.rpartition("/")[2]] += 1
        if not server.admits(headers.get("authorization")):
            return _error(401, "Credentials needed")
        if any(headers.get(name, "").partition(";")[0] != MEDIA_TYPE for name in ("accept", "content-type")):
            return _error(406, "the Accept header needs to be " + MEDIA_TYPE)
        asked = json.loads(body)
        if path.endswith("/info/lfs/verify"):
            has = len(self.objects.get(asked["oid"], b"")) == asked["size"] and asked["oid"] in self.objects
            self.verified.add(asked["oid"])
            return (200, b"") if has else _error(404, "Object not found")
        if not path.endswith("/objects/batch"):
            return _error(404, "no such resource")
        if asked.get("operation") not in {"download", "upload"} or "basic" not in asked.get("transfers", ["basic"]):
            return _error(422, "malformed")
        base = path.removesuffix("/objects/batch")
        origin = self.elsewhere or f"{server.scheme}://127.0.0.1:{server.port}"
        objects = [self._object(asked["operation"], each, origin, base) for each in asked["objects"]]
        return 200, json.dumps({"transfer": "basic", "objects": objects, "hash_algo": "sha256"} | self.answers).encode()

    def _object(self, operation: str, each: dict[str, Any], origin: str, base: str) -> dict[str, Any]:
        oid = each["oid"]
        found = {"oid": oid, "size": each["size"]}
        if not _OID.fullmatch(oid) or each["size"] < 0:
            return found | {"error": {"code": 422, "message": "malformed"}}
        if oid in self.refused:
            return found | {"error": {"code": 422, "message": self.refused[oid]}}
        has = oid in self.objects
        if operation == "download" and not has and oid not in self.lost:
            return found | {"error": {"code": 404, "message": "Object does not exist"}}
        if operation == "upload" and has:
            return found
        signed = self._signed(f"{origin}/contents/{oid}")
        if operation == "download":
            return found | {"authenticated": not self.by_login, "actions": {"download": signed}}
        actions = {"upload": signed}
        if not self.without_verify:
            actions["verify"] = {"href": f"{origin}{base}/verify"}
        return found | {"actions": actions}

    def _signed(self, href: str) -> dict[str, Any]:
        if self.by_login:
            return {"href": href}
        signature = secrets.token_hex(8)
        self.expired -= 1
        ends = datetime.now(UTC) + (self.expires if self.expired < 0 else timedelta(seconds=-1))
        self._signatures[signature] = ends
        return {
            "href": f"{href}?signature={signature}",
            "header": {"X-Signature": signature, "Host": "elsewhere.example", **self.headers},
            # A clock that is wrong: whoever believes it, asks again for nothing.
            "expires_at": (ends + timedelta(hours=1)).isoformat(),
        }

    def _content(
        self, server: Admits, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        path, _, query = path.partition("?")
        oid, signature = path.rpartition("/")[2], headers.get("x-signature", "")
        self.calls[f"{method} content"] += 1
        self.logins_at_contents.append(headers.get("authorization"))
        if self.by_login:
            if not server.admits(headers.get("authorization")):
                return _error(401, "Credentials needed")
        elif query != f"signature={signature}" or self._signatures.get(signature, datetime.min.replace(tzinfo=UTC)) < (
            datetime.now(UTC)
        ):
            return _error(403, "Request has expired")
        if method == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                return _error(422, "not that content")
            self.objects[oid] = body
            return 200, b""
        return (200, self.objects[oid]) if oid in self.objects else _error(404, "Object not found")


def pointer_to(content: bytes) -> Pointer:
    """Return the pointer of a content."""
    return Pointer(hashlib.sha256(content).hexdigest(), len(content))


def _error(status: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"message": message, "request_id": "1"}).encode()
