"""The gateway's authenticator: a chain of those who know tokens, then the role that the called RPC requires."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from services.common.errors import PermissionDenied, Unauthenticated
from services.common.rpc.auth import Credentials
from services.common.rpc.auth_failures import FailureLimiter
from services.gateway.auth.current import set_current_access
from services.gateway.auth.model import FIRST_ADMINISTRATOR, Access, Role

_HINT = "the first administrator's is in $BOATYARD_HOME/token, for its owner"


class Knows(Protocol):
    """Somebody who knows tokens of one kind."""

    def is_at_hand(self, token: str) -> bool:
        """Whether it costs nothing to say what a token allows, or is worth it: it has opened before."""
        ...

    async def access(self, token: str, shown: Credentials) -> Access | None:
        """Return what a token allows; None for one that is not known here. `shown` is the whole of the call's words."""
        ...


class AdminToken:
    """Knows the first administrator's token, of the data directory's owner."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def is_at_hand(self, token: str) -> bool:  # noqa: ARG002 - it is only compared
        """See Knows."""
        return True

    async def access(self, token: str, shown: Credentials) -> Access | None:  # noqa: ARG002 - one token opens all methods
        """See Knows."""
        return Access(FIRST_ADMINISTRATOR, Role.ADMIN) if hmac.compare_digest(token.encode(), self._token) else None


class GatewayAuthenticator:
    """Asks each of `known` in turn. `required` has the role of each RPC by its full name; others are for ADMIN.

    Where too many tokens were not known of late, those that are not at hand are not asked about.
    """

    forgets = True

    def __init__(
        self, known: Sequence[Knows], required: Mapping[str, Role], failures: FailureLimiter | None = None
    ) -> None:
        self._known = known
        self._required = required
        self._failures = failures or FailureLimiter()

    async def authenticate(self, shown: Credentials) -> str:
        """See Authenticator; what the caller is allowed is then `current_access()`."""
        access = await self._access(shown)
        set_current_access(access)
        required = self._required.get(shown.method, Role.ADMIN)
        if not access.role.may(required):
            raise PermissionDenied(
                f"{shown.method.rpartition('/')[2]} needs a token of role {required}, and this one's is {access.role}",
                reason="ROLE_REQUIRED",
                metadata={"role": access.role, "required_role": required},
            )
        return access.name

    async def _access(self, shown: Credentials) -> Access:
        if shown.token is None:
            self._failures.note(shown.peer)
            raise Unauthenticated(f"a bearer token is needed: {_HINT}", reason="TOKEN_REQUIRED")
        for known in self._known:
            if not (shown.is_again or known.is_at_hand(shown.token)):
                self._failures.check(shown.peer)
            access = await known.access(shown.token, shown)
            if access is not None:
                return access if access.origin else replace(access, origin=shown.peer)
        if not shown.is_again:
            self._failures.note(shown.peer)
        raise Unauthenticated(f"this token is not known here: {_HINT}", reason="TOKEN_REQUIRED")
