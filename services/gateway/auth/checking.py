"""Looks at what a request names before it is served: permission before existence, for every RPC in one place."""

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.interceptors import Call
from services.gateway.auth import scope, wire
from services.gateway.auth.owners import all_within


class ScopeCheck:
    """Refuses what a token of some projects names of others. See `interceptors.Inspect`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def __call__(self, call: Call) -> None:
        """Raise PermissionDenied (PROJECT_NOT_ALLOWED), the same for what is not there."""
        projects = scope.visible()
        if projects is None:
            return
        named = wire.named_in(call.request)
        if not named:
            return
        async with self._engine.begin() as connection:
            allowed = await all_within(connection, named, projects)
        if not allowed:
            raise scope.not_allowed()
