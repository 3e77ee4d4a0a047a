"""What a caller may see by its projects. Check this before looking something up: permission before existence."""

from sqlalchemy import ColumnElement

from services.common.errors import PermissionDenied
from services.gateway.values.catalog import DEFAULT_PROJECT_ID
from services.gateway.values.principal import current_principal


def visible() -> frozenset[str] | None:
    """Return the projects that the caller may see, for the filter of a list; None means all."""
    return current_principal().projects


def within(project_id: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Return the conditions, none or one, that limit a list to what the caller may see."""
    projects = visible()
    return [] if projects is None else [project_id.in_(sorted(projects))]


def default_project() -> str:
    """Return the project of what is created without one: the token's, if it is for one only, and else `default`.

    Raises PermissionDenied (PROJECT_NOT_ALLOWED) for a token of several projects without `default`.
    """
    projects = visible()
    project_id = next(iter(projects)) if projects is not None and len(projects) == 1 else DEFAULT_PROJECT_ID
    check(project_id)
    return project_id


def check(project_id: str) -> None:
    """Raise PermissionDenied (PROJECT_NOT_ALLOWED) for a project that the caller's token is not for."""
    if not current_principal().sees(project_id):
        raise not_allowed()


def check_all() -> None:
    """Raise PermissionDenied (PROJECT_NOT_ALLOWED) for a token of some projects, in an RPC that concerns them all."""
    if current_principal().projects is not None:
        raise PermissionDenied(
            "this is about all projects, and the token is for some of them only",
            reason="PROJECT_NOT_ALLOWED",
            metadata={"needed_projects": "all"},
        )


def not_allowed() -> PermissionDenied:
    """Return the one error for things of other projects and for things that do not exist: it tells neither apart."""
    return PermissionDenied(
        "what the request names does not exist, or belongs to a project that this token is not for",
        reason="PROJECT_NOT_ALLOWED",
    )
