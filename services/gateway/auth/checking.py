"""Looks at what a request names before it is served: permission before existence, for every RPC in one place."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.call import Call
from services.gateway.auth import scope, wire
from services.gateway.auth.owners import all_within

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

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def __call__(self, call: Call) -> None:
        """Raise PermissionDenied (PROJECT_NOT_ALLOWED), the same for what is not there."""
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
