"""Who calls, and what a caller is allowed."""

import enum
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

FIRST_ADMINISTRATOR = "admin"
"""What the holder of the data directory's own token is called in records; no other token is called so."""


class Role(enum.StrEnum):
    """What a token is for; the names are those of the contract, without prefix."""

    VIEWER = "VIEWER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"
    COORDINATOR = "COORDINATOR"

    def may(self, required: "Role") -> bool:
        """Whether this role opens an RPC that requires another."""
        return required in _OPENS[self]


_OPENS = {
    Role.VIEWER: {Role.VIEWER},
    Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
    Role.ADMIN: set(Role),
    Role.COORDINATOR: {Role.COORDINATOR},
}


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller: a name for records, a role, and the projects that it is for; None means all of them.

    `token_id` is the token that it has shown; empty for the first administrator's. `forwarded_by` is the cell that has
    checked the caller, for a call that came by way of another gateway; empty for one that came straight here. `origin`
    is where the caller is, in gRPC's words, such as ipv4:127.0.0.1:40312. `coordinator_id` is the one coordinator as
    which it may call, where that is known already.
    """

    name: str
    role: Role
    projects: frozenset[str] | None = None
    token_id: str = ""
    origin: str = ""
    forwarded_by: str = ""
    coordinator_id: str = ""

    def sees(self, project_id: str) -> bool:
        """Whether a project is among those that it is for."""
        return self.projects is None or project_id in self.projects


OURSELVES = Principal("", Role.ADMIN)
"""Work of our own, such as the driver's."""

_CURRENT: ContextVar[Principal] = ContextVar("boatyard_access", default=OURSELVES)


def current_principal() -> Principal:
    """Return what the caller of the RPC being served is allowed; everything for work of our own."""
    return _CURRENT.get()


def set_current_principal(principal: Principal) -> None:
    """Set it for the rest of this task; the authenticator does, and nobody else."""
    _CURRENT.set(principal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A way to be let in, as it is kept; of its secret there is a hash alone. Times are in UTC.

    `projects` of () means all of them; `name` is never empty. One without an `expire_time` is good until it is revoked.
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
        """Return what its caller is allowed."""
        return Principal(
            name=self.name,
            role=self.role,
            projects=frozenset(self.projects) or None,
            token_id=self.token_id,
            coordinator_id=self.coordinator_id,
        )
