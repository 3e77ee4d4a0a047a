"""Puts the gateway's door together: who is let in, to what, and the RPCs that say so."""

from collections.abc import Sequence
from dataclasses import dataclass

from boatyard.gateway.v1 import auth_pb2
from boatyard.gateway.v1.auth_pb2_grpc import add_TokenServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.interceptors import Inspect
from services.common.rpc.server import Registration
from services.gateway.auth.authenticator import AdminToken, GatewayAuthenticator, Knows
from services.gateway.auth.checking import ScopeCheck
from services.gateway.auth.known import StoredTokens
from services.gateway.auth.servicer import TokenServicer
from services.gateway.auth.store import TokenStore
from services.gateway.auth.wire import required_roles


@dataclass(frozen=True, slots=True)
class Door:
    """What stands before every RPC of the gateway."""

    authenticator: GatewayAuthenticator
    inspect: Inspect


def door(
    engine: AsyncEngine, admin_token: str, services: Sequence[Registration], others: Sequence[Knows] = ()
) -> tuple[Door, Registration]:
    """Return the door before `services`, and the service by which people change who comes through.

    `others` know tokens that are neither the first administrator's nor in the database, such as another cell's.
    """
    tokens = TokenStore(engine)
    known = StoredTokens(tokens)
    service = Registration(
        auth_pb2.DESCRIPTOR.services_by_name["TokenService"].full_name,
        add_TokenServiceServicer_to_server,
        TokenServicer(tokens, known),
    )
    required = required_roles(served.name for served in (*services, service))
    return Door(GatewayAuthenticator([AdminToken(admin_token), *others, known], required), ScopeCheck(engine)), service
