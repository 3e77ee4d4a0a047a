"""Converts tokens between messages and values."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from boatyard.access.v1 import access_pb2
from boatyard.gateway.v1 import auth_pb2 as pb

from services.common.ids import new_id
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check, Violation
from services.gateway.values.principal import FIRST_ADMINISTRATOR, Token
from services.gateway.wire.requests import page_checks

_TOKEN: Final = Mapper(Token, pb.Token, by_hand={"projects", "project_ids"})


def token_from_proto(request: pb.CreateTokenRequest, creator: str) -> Token:
    """Read the token that a request asks for, with a new id."""
    token_id, now = new_id("token"), datetime.now(UTC)
    return _TOKEN.from_proto(
        request.token,
        token_id=token_id,
        name=request.token.name.strip() or token_id,
        projects=tuple(sorted(set(request.token.project_ids))),
        creator=creator,
        create_time=now,
        expire_time=now + request.lifetime.ToTimedelta() if request.HasField("lifetime") else None,
        revoke_time=None,
        last_use_time=None,
    )


def token_to_proto(token: Token) -> pb.Token:
    """Convert a token into its message."""
    return _TOKEN.to_proto(token, project_ids=token.projects)


def check_token(message: pb.Token) -> Iterator[Violation]:
    """Yield what is wrong with a token that is to be created."""
    if message.name.strip() == FIRST_ADMINISTRATOR:
        yield "name", f"must not be `{FIRST_ADMINISTRATOR}`: audit records use it for the first administrator"
    if message.coordinator_id and message.role != access_pb2.ROLE_COORDINATOR:
        yield "coordinator_id", "is for a token of role COORDINATOR"


CHECKS: Final[Mapping[str, Check]] = {
    pb.Token.DESCRIPTOR.full_name: check_token,
    **page_checks(pb.DESCRIPTOR.services_by_name["TokenService"]),
}
"""Rules for messages about tokens as a whole, by their full names."""
