"""What a caller is allowed."""

import enum
from dataclasses import dataclass


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
class Access:
    """One caller: a name for records, a role, and the projects that it is for; None means all of them."""

    name: str
    role: Role
    projects: frozenset[str] | None = None

    def sees(self, project_id: str) -> bool:
        """Whether a project is among those that it is for."""
        return self.projects is None or project_id in self.projects
