"""Between the contract's messages and what callers are allowed."""

from collections.abc import Iterable
from typing import Final

from boatyard.gateway.v1 import access_pb2 as pb
from google.protobuf.descriptor_pool import Default

from services.gateway.auth.model import Role

ROLES: Final = {
    pb.ROLE_VIEWER: Role.VIEWER,
    pb.ROLE_OPERATOR: Role.OPERATOR,
    pb.ROLE_ADMIN: Role.ADMIN,
    pb.ROLE_COORDINATOR: Role.COORDINATOR,
}


def required_roles(services: Iterable[str]) -> dict[str, Role]:
    """Return the role that each RPC of these services (full names) requires, by the RPC's path."""
    return {
        f"/{service.full_name}/{method.name}": ROLES[method.GetOptions().Extensions[pb.required_role]]
        for service in map(Default().FindServiceByName, services)
        for method in service.methods
        if method.GetOptions().HasExtension(pb.required_role)
    }
