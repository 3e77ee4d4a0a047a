"""Who makes the call that is being served."""

from contextvars import ContextVar

from services.gateway.auth.model import Access, Role

OURSELVES = Access("", Role.ADMIN)
"""Work of our own, such as the driver's."""

_CURRENT: ContextVar[Access] = ContextVar("boatyard_access", default=OURSELVES)


def current_access() -> Access:
    """Return what the caller of the RPC being served is allowed; everything for work of our own."""
    return _CURRENT.get()


def set_current_access(access: Access) -> None:
    """Set it for the rest of this task; the authenticator does, and nobody else."""
    _CURRENT.set(access)
