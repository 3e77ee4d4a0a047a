"""Looks at what a request names before it is served: permission before existence, for every RPC in one place.

And at whom it names: a coordinator's token is one coordinator's, which it was made for or which has shown it first.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.errors import PermissionDenied
from services.common.ids import is_id
from services.common.rpc.call import RpcCall
from services.gateway.auth import scope, wire
from services.gateway.auth.current import current_access
from services.gateway.auth.model import Access, Role
from services.gateway.auth.owners import all_within
from services.gateway.auth.store import TokenStore

CHECKED_BY_THE_SERVICE: Final = frozenset(
    {
        # It leaves out what it does not know and what the caller does not see.
        "/boatyard.gateway.v1.LedgerService/ReadStandings",
        # The hook is the job's, as the lease says, and may be one for all projects.
        "/boatyard.gateway.v1.LedgerService/ReadSigningKey",
    }
)


class ScopeCheck:
    """Refuses what a token of some projects names of others. See `call.Inspect`."""

    def __init__(self, engine: AsyncEngine, tokens: TokenStore) -> None:
        self._engine = engine
        self._tokens = tokens

    async def __call__(self, call: RpcCall) -> None:
        """Raise PermissionDenied (COORDINATOR_NOT_ALLOWED; PROJECT_NOT_ALLOWED, the same for what is not there)."""
        access = current_access()
        if access.role is Role.COORDINATOR:
            await self._check_coordinator(access, wire.coordinator_in(call.request))
        projects = scope.visible()
        if projects is None or call.method in CHECKED_BY_THE_SERVICE:
            return
        named = wire.named_in(call.request)
        if not named:
            return
        async with self._engine.begin() as connection:
            allowed = await all_within(connection, named, projects)
        if not allowed:
            raise scope.not_allowed()

    async def _check_coordinator(self, access: Access, coordinator_id: str) -> None:
        if not is_id(coordinator_id) or coordinator_id == access.coordinator_id:  # what is no id the RPC refuses
            return
        owner = access.coordinator_id or await self._tokens.bind(access.token_id, coordinator_id)
        if owner == coordinator_id:
            return
        why = f"this token is {owner!r}'s" if owner else "another token is that one's"
        raise PermissionDenied(
            f"the call is of coordinator {coordinator_id!r}, and {why}: make one for it, by "
            f"`boatyard token create --role coordinator --coordinator {coordinator_id}`",
            reason="COORDINATOR_NOT_ALLOWED",
            metadata={"coordinator_id": coordinator_id, "coordinator_id_of_token": owner},
        )
