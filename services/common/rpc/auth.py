"""Who may call: one token, shown as `authorization: Bearer <token>`."""

import hmac
from typing import Protocol

from services.common.errors import Unauthenticated

AUTHORIZATION_METADATA_KEY = "authorization"


class Authenticator(Protocol):
    """Knows the callers of one service."""

    async def authenticate(self, token: str | None, method: str) -> str:
        """Return the caller's name, for logs and records, or raise Unauthenticated or PermissionDenied.

        `token` is None where none was shown; `method` is the full name, such as /boatyard.git.v1.GitService/Push.
        """
        ...


class SingleToken:
    """Admits whoever shows one secret: the cell token of the node services, the admin token of the gateway.

    `hint` is added to the refusal, and says where the token is found; `reason` is the one that the proto documents.
    """

    def __init__(self, token: str, *, caller: str, reason: str, hint: str) -> None:
        self._token = token.encode()
        self._caller = caller
        self._reason = reason
        self._hint = hint

    async def authenticate(self, token: str | None, method: str) -> str:  # noqa: ARG002 - one token opens all methods
        """See Authenticator."""
        if token is None:
            raise Unauthenticated(f"a bearer token is needed: {self._hint}", reason=self._reason)
        if not hmac.compare_digest(token.encode(), self._token):
            raise Unauthenticated(f"this token is not known here: {self._hint}", reason=self._reason)
        return self._caller


def cell_authenticator(token: str) -> SingleToken:
    """Admit this cell's own gateway, for a node service."""
    return SingleToken(
        token, caller="cell", reason="CELL_TOKEN_REQUIRED", hint="it is in $BOATYARD_HOME/cell-token, for its owner"
    )


def admin_authenticator(token: str) -> SingleToken:
    """Admit the data directory's owner, for the gateway."""
    return SingleToken(
        token, caller="admin", reason="TOKEN_REQUIRED", hint="it is in $BOATYARD_HOME/token, for its owner"
    )
