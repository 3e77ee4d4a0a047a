"""Authentication of callers by a token, as `authorization: Bearer <token>`."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.common.errors import Unauthenticated
from services.common.rpc.auth_failures import FailureLimiter

AUTHORIZATION_METADATA_KEY = "authorization"


def bearer(header: str) -> str | None:
    """Return the token of an authorization header; None where it has none."""
    scheme, _, token = header.partition(" ")
    return token if scheme.lower() == "bearer" and token else None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is known of the caller of a call before it is authenticated.

    `token` is None when none was sent; `method` is the full name, such as /boatyard.git.v1.GitService/Push; `peer` is
    gRPC's name for the caller's address, such as ipv4:127.0.0.1:40312. `is_again` is True when the call was admitted
    before, and is checked again because its stream still lasts.
    """

    token: str | None = field(repr=False)
    method: str
    peer: str
    metadata: Mapping[str, str | bytes] = field(repr=False)
    is_again: bool = False

    def text(self, key: str) -> str:
        """Return one value of the call's metadata; empty where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a name, for logs and records.

    Calls of the same `counted_by` are one caller's, in `Bounds`. It is None for the only caller that a service has.
    """

    name: str
    counted_by: str | None = None


class Authenticator(Protocol):
    """Authenticates the callers of one service."""

    @property
    def may_revoke(self) -> bool:
        """True when a caller that was let in may be refused later, so that open streams are checked again."""
        ...

    async def identify(self, credentials: Credentials) -> Caller:
        """Return who calls. Raises Unauthenticated, TooManyFailuresError.

        Runs in the call's own task, so the handler sees the context variables that it sets.
        """
        ...

    def authorize(self, credentials: Credentials) -> None:
        """Raise PermissionDenied when the method is not for the caller whom this task has identified."""
        ...


class SingleToken:
    """Admits callers that send one secret, such as the cell token. The secret is compared even after many failures.

    `hint` is added to the refusal, and says where to find the token; `reason` is the one that the proto documents.
    """

    may_revoke = False

    def __init__(self, token: str, *, caller: str, reason: str, hint: str) -> None:
        self._token = token.encode()
        self._caller = Caller(caller)
        self._reason = reason
        self._hint = hint
        self._failures = FailureLimiter()

    async def identify(self, credentials: Credentials) -> Caller:
        """See Authenticator."""
        if credentials.token is not None and hmac.compare_digest(credentials.token.encode(), self._token):
            return self._caller
        self._failures.note(credentials.peer)
        what = "a bearer token is needed" if credentials.token is None else "this token is not known here"
        raise Unauthenticated(f"{what}: {self._hint}", reason=self._reason)

    def authorize(self, credentials: Credentials) -> None:
        """See Authenticator: who has the token may do everything."""


def cell_authenticator(token: str) -> SingleToken:
    """Return the authenticator that admits callers of this cell alone."""
    return SingleToken(
        token, caller="cell", reason="CELL_TOKEN_REQUIRED", hint="it is in $BOATYARD_HOME/cell-token, for its owner"
    )
