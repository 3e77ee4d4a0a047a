"""What callers are told while the one cell that has what they ask for does not answer."""

from services.common.errors import Unavailable, peer_unavailable


def cell_unavailable(cell_id: str, host: str = "") -> Unavailable:
    """Return the error for a cell that does not answer."""
    where = f" on {host}" if host else ""
    return peer_unavailable(
        "CELL_UNAVAILABLE",
        f"cell {cell_id}{where}, which has what is asked for, does not answer now",
        {"cell_id": cell_id, "host": host},
    )
