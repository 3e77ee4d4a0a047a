"""The gateway's authenticator: asks a chain of token sources, then checks the role that the called RPC requires."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from services.common.errors import PermissionDenied, Unauthenticated
from services.common.rpc.auth import Caller, Credentials
from services.common.rpc.auth_failures import FailureLimiter
from services.gateway.values.principal import (
    FIRST_ADMINISTRATOR,
    Principal,
    Role,
    current_principal,
    set_current_principal,
)

_HINT = "the first administrator's is in $BOATYARD_HOME/token, for its owner"


class TokenSource(Protocol):
    """Knows the tokens of one kind."""

    async def principal(self, token: str, credentials: Credentials) -> Principal | None:
        """Return whom a token stands for; None if it is not known. `credentials` is all that the call presents."""
        ...


class AdminToken:
    """Knows the token of the first administrator, the owner of the data directory."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def principal(self, token: str, credentials: Credentials) -> Principal | None:  # noqa: ARG002 - the method does not matter
        """Return the first administrator for the right token."""
        return Principal(FIRST_ADMINISTRATOR, Role.ADMIN) if hmac.compare_digest(token.encode(), self._token) else None


class GatewayAuthenticator:
    """Asks each of `sources` in turn. `required` has the role of each RPC by its path; others are for ADMIN.

    After too many unknown tokens from a peer, the others from there are refused with TOO_MANY_FAILURES.
    """

    may_revoke = True

    def __init__(
        self, sources: Sequence[TokenSource], required: Mapping[str, Role], failures: FailureLimiter | None = None
    ) -> None:
        self._sources = sources
        self._required = required
        self._failures = failures or FailureLimiter()

    async def identify(self, credentials: Credentials) -> Caller:
        """Return who calls, as `Authenticator` says, and make the caller the `current_principal()`."""
        principal = await self._principal(credentials)
        set_current_principal(principal)
        return Caller(principal.name, counted_by=f"token:{principal.token_id}")

    def authorize(self, credentials: Credentials) -> None:
        """See Authenticator."""
        principal = current_principal()
        required = self._required.get(credentials.method, Role.ADMIN)
        if not principal.role.may(required):
            rpc = credentials.method.rpartition("/")[2]
            raise PermissionDenied(
                f"{rpc} needs a token of role {required}, and this one's is {principal.role}",
                reason="ROLE_REQUIRED",
                metadata={"role": principal.role, "required_role": required},
            )

    async def _principal(self, credentials: Credentials) -> Principal:
        if credentials.token is None:
            self._failures.note(credentials.peer)
            raise Unauthenticated(f"a bearer token is needed: {_HINT}", reason="TOKEN_REQUIRED")
        for source in self._sources:
            principal = await source.principal(credentials.token, credentials)
            if principal is not None:
                return principal if principal.origin else replace(principal, origin=credentials.peer)
        if not credentials.is_again:
            self._failures.note(credentials.peer)
        raise Unauthenticated(f"this token is not known here: {_HINT}", reason="TOKEN_REQUIRED")
