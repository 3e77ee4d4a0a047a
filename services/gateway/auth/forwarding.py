"""Calls that one gateway makes to another for its own caller: what that caller is allowed goes with them.

The first gateway has checked the caller's token; the second checks role and projects again, as if the caller had come
to it. What makes it believe the first one is the token of the call: the second cell's own, which stands in the database
that the gateways share, and nowhere else.
"""

import hmac
import json
from typing import Final

from services.common.errors import Unauthenticated
from services.common.rpc.auth import Credentials
from services.gateway.auth.current import current_access
from services.gateway.auth.model import Access, Role

FORWARDED_METADATA_KEY: Final = "boatyard-forwarded"


def forwarded_metadata(cell_id: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that this cell makes for the caller of the RPC being served."""
    access = current_access()
    told = {
        "name": access.name,
        "role": access.role,
        "projects": None if access.projects is None else sorted(access.projects),
        "token_id": access.token_id,
        "origin": access.origin,
        "cell_id": cell_id,
    }
    return ((FORWARDED_METADATA_KEY, json.dumps(told)),)  # ASCII, as metadata must be


class PeerToken:
    """Knows the token by which other cells' gateways call this one; see `authenticator.Knows`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def is_at_hand(self, token: str) -> bool:  # noqa: ARG002 - it is only compared
        """See Knows."""
        return True

    async def access(self, token: str, shown: Credentials) -> Access | None:
        """Return what the caller is allowed for whom the other gateway calls. Raises Unauthenticated without one."""
        if not hmac.compare_digest(token.encode(), self._token):
            return None
        try:
            told = json.loads(shown.text(FORWARDED_METADATA_KEY))
            projects = told["projects"]
            return Access(
                name=told["name"],
                role=Role(told["role"]),
                projects=None if projects is None else frozenset(projects),
                token_id=told["token_id"],
                origin=told["origin"],
                forwarded_by=told["cell_id"],
            )
        except (ValueError, TypeError, KeyError):
            raise Unauthenticated(
                f"a cell's token needs {FORWARDED_METADATA_KEY}, with whom the call is for", reason="TOKEN_REQUIRED"
            ) from None
