"""What callers are told while the one cell that has what they ask for does not answer."""

from services.common.errors import Unavailable


def cell_unavailable(cell_id: str, host: str = "") -> Unavailable:
    """Return what is said when the one cell that has what is asked for does not answer."""
    where = f" on {host}" if host else ""
    return Unavailable(
        "CELL_UNAVAILABLE",
        f"cell {cell_id}{where}, which has what is asked for, does not answer now",
        retry_after=5.0,
        metadata={"cell_id": cell_id, "host": host},
    )
