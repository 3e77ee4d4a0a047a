"""Checks what a request names before it is served: permission comes before existence, for every RPC.

It also checks which coordinator a request names: a coordinator's token belongs to one coordinator, the one that it was
made for or else the first one that used it.
"""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.engine import reading
from services.common.errors import PermissionDenied
from services.common.ids import is_id
from services.common.rpc.call import RpcCall
from services.gateway import scope
from services.gateway.door import wire
from services.gateway.door.owners import Owners, all_within
from services.gateway.door.tokens.store import TokenStore
from services.gateway.values.principal import Principal, Role, current_principal

CHECKED_BY_THE_SERVICE: Final = frozenset(
    {
        # It leaves out jobs that do not exist or that the caller may not see.
        "/boatyard.ledger.v1.LedgerService/ReadJobStatuses",
        # The lease says which job the hook is for, and the hook may be one for all projects.
        "/boatyard.ledger.v1.LedgerService/ReadSigningKey",
    }
)


class ScopeCheck:
    """Refuses requests whose token is for some projects and that name resources of others; see `call.Inspect`."""

    def __init__(self, engine: AsyncEngine, tokens: TokenStore, owners: Owners) -> None:
        self._engine = engine
        self._owners = owners
        self._tokens = tokens

    async def __call__(self, call: RpcCall) -> None:
        """Raise PermissionDenied (COORDINATOR_NOT_ALLOWED; PROJECT_NOT_ALLOWED, also for what does not exist)."""
        principal = current_principal()
        if principal.role is Role.COORDINATOR:
            await self._check_coordinator(principal, wire.coordinator_in(call.request))
        projects = scope.visible()
        if projects is None or call.method in CHECKED_BY_THE_SERVICE:
            return
        named = wire.named_in(call.request, self._owners)
        if not named:
            return
        async with reading(self._engine) as connection:
            allowed = await all_within(connection, self._owners, named, projects)
        if not allowed:
            raise scope.not_allowed()

    async def _check_coordinator(self, principal: Principal, coordinator_id: str) -> None:
        if (
            not is_id(coordinator_id) or coordinator_id == principal.coordinator_id
        ):  # the RPC itself refuses a malformed id
            return
        owner = principal.coordinator_id or await self._tokens.bind(principal.token_id, coordinator_id)
        if owner == coordinator_id:
            return
        why = f"this token is {owner!r}'s" if owner else "that coordinator has another token"
        raise PermissionDenied(
            f"the call is from coordinator {coordinator_id!r}, and {why}: make a token for it with "
            f"`boatyard token create --role coordinator --coordinator {coordinator_id}`",
            reason="COORDINATOR_NOT_ALLOWED",
            metadata={"coordinator_id": coordinator_id, "coordinator_id_of_token": owner},
        )
