"""Callers, and what they are allowed to do."""

import enum
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

FIRST_ADMINISTRATOR = "admin"
"""The name in records for the holder of the data directory's own token; no other token has this name."""


class Role(enum.StrEnum):
    """What a token is for. The names are those of the contract, without prefix."""

    VIEWER = "VIEWER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"
    COORDINATOR = "COORDINATOR"

    def may(self, required: "Role") -> bool:
        """Return True when this role may call an RPC that requires `required`."""
        return required in _INCLUDES[self]


_INCLUDES = {
    Role.VIEWER: {Role.VIEWER},
    Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
    Role.ADMIN: set(Role),
    Role.COORDINATOR: {Role.COORDINATOR},
}


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: a name for records, a role, and the projects that it is limited to; None means all projects.

    `token_id` is the token that it has shown; empty for the first administrator's. `forwarded_by` is the cell that has
    checked the caller, for a call that came through another gateway; empty for a direct call. `origin` is the caller's
    address as gRPC writes it, such as ipv4:127.0.0.1:40312. `coordinator_id` is the only coordinator as which it may
    call, if that is known already.
    """

    name: str
    role: Role
    projects: frozenset[str] | None = None
    token_id: str = ""
    origin: str = ""
    forwarded_by: str = ""
    coordinator_id: str = ""

    def sees(self, project_id: str) -> bool:
        """Return True when it may see a project."""
        return self.projects is None or project_id in self.projects


OURSELVES = Principal("", Role.ADMIN)
"""The principal of our own work, such as the driver's."""

_CURRENT: ContextVar[Principal] = ContextVar("boatyard_principal", default=OURSELVES)


def current_principal() -> Principal:
    """Return the caller of the RPC being served; for our own work OURSELVES, which may do everything."""
    return _CURRENT.get()


def with_caller(earlier: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of those who did something, when the caller does it too; our own work has no name."""
    name = current_principal().name
    return earlier if not name or name in earlier else (*earlier, name)


def set_current_principal(principal: Principal) -> None:
    """Set the caller for the rest of this task. Only the authenticator does so."""
    _CURRENT.set(principal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is stored; of its secret only a hash is stored. Times are in UTC.

    `projects` of () means all of them; `name` is never empty. Without an `expire_time` it is valid until it is revoked.
    One of role COORDINATOR without a `coordinator_id` has not been used yet.
    """

    token_id: str
    name: str
    role: Role
    projects: tuple[str, ...]
    creator: str
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None
    coordinator_id: str = ""

    @property
    def principal(self) -> Principal:
        """The principal of calls with this token."""
        return Principal(
            name=self.name,
            role=self.role,
            projects=frozenset(self.projects) or None,
            token_id=self.token_id,
            coordinator_id=self.coordinator_id,
        )
