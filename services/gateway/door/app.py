"""Puts the gateway's door together: who is let in, what they may do, and what is recorded of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from boatyard.gateway.v1 import audit_pb2, auth_pb2
from boatyard.gateway.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from boatyard.gateway.v1.auth_pb2_grpc import add_TokenServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.retention import every_hour
from services.common.rpc.call import Inspect, Layer, Screen
from services.common.rpc.server import Registration
from services.gateway.door.audit import store as audit_store
from services.gateway.door.audit.recording import recording
from services.gateway.door.audit.servicer import AuditServicer
from services.gateway.door.audit.store import AuditStore
from services.gateway.door.audit.trail import AuditTrail
from services.gateway.door.audit.wire import recorded_methods
from services.gateway.door.authenticator import AdminToken, GatewayAuthenticator, TokenSource
from services.gateway.door.owners import Owners
from services.gateway.door.scope_check import ScopeCheck
from services.gateway.door.tokens import store as token_store
from services.gateway.door.tokens import wire as token_wire
from services.gateway.door.tokens.cache import CachedTokens
from services.gateway.door.tokens.servicer import TokenServicer
from services.gateway.door.tokens.store import TokenStore
from services.gateway.door.wire import required_roles
from services.gateway.values.principal import Role
from services.gateway.wire.access import for_caller
from services.gateway.wire.requests import page_checks


@dataclass(frozen=True, slots=True)
class Door:
    """What every call passes before it reaches an RPC of the gateway; `registrations` are all of the RPCs."""

    registrations: Sequence[Registration]
    authenticator: GatewayAuthenticator
    inspect: Inspect
    screen: Screen
    around: Sequence[Layer]
    trail: AuditTrail
    engine: AsyncEngine
    keep_records: timedelta

    async def run(self) -> None:
        """Write the audit records, and remove what is old, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.trail.run())
            tasks.create_task(_run_retention(self.engine, self.keep_records))


def door(
    engine: AsyncEngine,
    services: Sequence[Registration],
    *,
    owners: Owners,
    cell_id: str,
    admin_token: str,
    keep_records: timedelta,
    others: Sequence[TokenSource] = (),
    other_paths: Mapping[str, Role],
) -> Door:
    """Make the door for `services`, and for the services of tokens and audit records, which it adds.

    `owners` says which project each resource belongs to that a request to `services` names. `others` know tokens that
    are neither the first administrator's nor in the database, such as another cell's. `other_paths` has the
    roles that paths require which are no RPCs of the contract: pages, and RPCs of earlier versions.
    """
    tokens, records = TokenStore(engine), AuditStore(engine)
    cached_tokens, trail = CachedTokens(tokens), AuditTrail(records)
    registrations = [
        *services,
        Registration(
            auth_pb2.DESCRIPTOR.services_by_name["TokenService"].full_name,
            add_TokenServiceServicer_to_server,
            TokenServicer(tokens, cached_tokens),
            token_wire.CHECKS,
        ),
        Registration(
            audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
            add_AuditServiceServicer_to_server,
            AuditServicer(records),
            page_checks(audit_pb2.DESCRIPTOR.services_by_name["AuditService"]),
        ),
    ]
    names = [registration.name for registration in registrations]
    return Door(
        registrations=registrations,
        authenticator=GatewayAuthenticator(
            [AdminToken(admin_token), *others, cached_tokens], {**required_roles(names), **other_paths}
        ),
        inspect=ScopeCheck(engine, tokens, owners),
        screen=for_caller,
        around=[recording(trail, cell_id, recorded_methods(names))],
        trail=trail,
        engine=engine,
        keep_records=keep_records,
    )


async def _run_retention(engine: AsyncEngine, keep: timedelta) -> None:
    """Remove every hour the audit records and tokens whose retention is over, until cancelled."""

    async def remove_old() -> bool:
        now = datetime.now(UTC)
        async with engine.begin() as connection:
            await audit_store.remove_expired(connection, now - keep)
            await token_store.remove_expired(connection, now - token_store.ENDED_RETENTION)
        return False

    await every_hour("records of calls", remove_old)
