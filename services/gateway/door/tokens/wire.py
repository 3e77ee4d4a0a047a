"""Converts tokens between messages and values."""

from datetime import UTC, datetime, timedelta
from typing import Final

from boatyard.gateway.v1 import auth_pb2

from services.common.ids import new_id
from services.common.rpc.times import timestamp_to_proto
from services.gateway.values.principal import FIRST_ADMINISTRATOR, Role, Token
from services.gateway.wire.access import ROLE_NUMBERS, ROLES
from services.gateway.wire.validation import Validator

_MAX_PROJECTS: Final = 100
_MAX_LIFETIME: Final = timedelta(days=3653)


def token_from_proto(check: Validator, request: auth_pb2.CreateTokenRequest, creator: str) -> Token:
    """Read the token that a request asks for, with a new id."""
    token_id, now = new_id("token"), datetime.now(UTC)
    check.part(request, "token")
    token = request.token
    name = check.line("token.name", token.name)
    if name.strip() == FIRST_ADMINISTRATOR:
        check.add(
            "token.name", f"must not be `{FIRST_ADMINISTRATOR}`: audit records use it for the first administrator"
        )
    if len(token.project_ids) > _MAX_PROJECTS:
        check.add("token.project_ids", f"must be at most {_MAX_PROJECTS}")
    for index, project_id in enumerate(token.project_ids[:_MAX_PROJECTS]):
        check.required_id(f"token.project_ids[{index}]", project_id)
    role = check.choice("token.role", token.role, ROLES)
    if token.coordinator_id and role is not Role.COORDINATOR:
        check.add("token.coordinator_id", "is for a token of role COORDINATOR")
    expire_time = None
    if request.HasField("lifetime"):
        expire_time = now + check.duration("lifetime", request.lifetime, _MAX_LIFETIME)
    return Token(
        token_id=token_id,
        name=name.strip() or token_id,
        role=role,
        projects=tuple(sorted(set(token.project_ids))),
        creator=creator,
        create_time=now,
        expire_time=expire_time,
        coordinator_id=check.optional_id("token.coordinator_id", token.coordinator_id),
    )


def token_to_proto(token: Token) -> auth_pb2.Token:
    """Convert a token into its message."""
    return auth_pb2.Token(
        token_id=token.token_id,
        name=token.name,
        role=ROLE_NUMBERS[token.role],
        project_ids=token.projects,
        coordinator_id=token.coordinator_id,
        creator=token.creator,
        create_time=timestamp_to_proto(token.create_time),
        expire_time=timestamp_to_proto(token.expire_time) if token.expire_time else None,
        revoke_time=timestamp_to_proto(token.revoke_time) if token.revoke_time else None,
        last_use_time=timestamp_to_proto(token.last_use_time) if token.last_use_time else None,
    )
