"""The gateway's authenticator: a chain of those who know tokens, then the role that the called RPC requires."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from services.common.errors import PermissionDenied, Unauthenticated
from services.common.rpc.auth import Credentials
from services.common.rpc.auth_failures import FailureLimiter
from services.gateway.values.principal import FIRST_ADMINISTRATOR, Principal, Role, set_current_principal

_HINT = "the first administrator's is in $BOATYARD_HOME/token, for its owner"


class TokenSource(Protocol):
    """Somebody who knows tokens of one kind."""

    def is_at_hand(self, token: str) -> bool:
        """Whether it costs nothing to say what a token allows, or is worth it: it has opened before."""
        ...

    async def principal(self, token: str, shown: Credentials) -> Principal | None:
        """Return what a token allows; None for one that is not known here. `shown` is the whole of the call's words."""
        ...


class AdminToken:
    """Knows the first administrator's token, of the data directory's owner."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def is_at_hand(self, token: str) -> bool:  # noqa: ARG002 - it is only compared
        """See TokenSource."""
        return True

    async def principal(self, token: str, shown: Credentials) -> Principal | None:  # noqa: ARG002 - one token opens all methods
        """See TokenSource."""
        return Principal(FIRST_ADMINISTRATOR, Role.ADMIN) if hmac.compare_digest(token.encode(), self._token) else None


class GatewayAuthenticator:
    """Asks each of `known` in turn. `required` has the role of each RPC by its full name; others are for ADMIN.

    Where too many tokens were not known of late, those that are not at hand are not asked about.
    """

    forgets = True

    def __init__(
        self, known: Sequence[TokenSource], required: Mapping[str, Role], failures: FailureLimiter | None = None
    ) -> None:
        self._known = known
        self._required = required
        self._failures = failures or FailureLimiter()

    async def authenticate(self, shown: Credentials) -> str:
        """See Authenticator; what the caller is allowed is then `current_principal()`."""
        principal = await self._principal(shown)
        set_current_principal(principal)
        required = self._required.get(shown.method, Role.ADMIN)
        if not principal.role.may(required):
            rpc = shown.method.rpartition("/")[2]
            raise PermissionDenied(
                f"{rpc} needs a token of role {required}, and this one's is {principal.role}",
                reason="ROLE_REQUIRED",
                metadata={"role": principal.role, "required_role": required},
            )
        return principal.name

    async def _principal(self, shown: Credentials) -> Principal:
        if shown.token is None:
            self._failures.note(shown.peer)
            raise Unauthenticated(f"a bearer token is needed: {_HINT}", reason="TOKEN_REQUIRED")
        for known in self._known:
            if not (shown.is_again or known.is_at_hand(shown.token)):
                self._failures.check(shown.peer)
            principal = await known.principal(shown.token, shown)
            if principal is not None:
                return principal if principal.origin else replace(principal, origin=shown.peer)
        if not shown.is_again:
            self._failures.note(shown.peer)
        raise Unauthenticated(f"this token is not known here: {_HINT}", reason="TOKEN_REQUIRED")
