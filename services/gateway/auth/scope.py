"""What a caller's projects let it see. Ask before looking whether anything is there: permission before existence."""

from services.common.errors import PermissionDenied
from services.gateway.auth.current import current_access


def visible() -> frozenset[str] | None:
    """Return the projects that the caller sees, for a list's filter; None means all."""
    return current_access().projects


def check(project_id: str) -> None:
    """Raise PermissionDenied (PROJECT_NOT_ALLOWED) for a project that the caller's token is not for."""
    if not current_access().sees(project_id):
        raise not_allowed()


def check_all() -> None:
    """Raise PermissionDenied (PROJECT_NOT_ALLOWED) for a token of some projects, where an RPC is about no project."""
    if current_access().projects is not None:
        raise PermissionDenied(
            "this is about all projects, and the token is for some of them alone", reason="PROJECT_NOT_ALLOWED"
        )


def not_allowed() -> PermissionDenied:
    """Return what is said of things of other projects and of things that are nowhere, so that neither is told."""
    return PermissionDenied(
        "what the request names is not there, or belongs to a project that this token is not for",
        reason="PROJECT_NOT_ALLOWED",
    )
