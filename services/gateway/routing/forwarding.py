"""Calls that one gateway makes to another on behalf of its own caller, and that carry what this caller is allowed.

The first gateway has checked the caller's token; the second checks role and projects again, as if it had been called
directly. It trusts the first one because of the token of the call: the second cell's own token, which is stored in the
database that the gateways share, and nowhere else.
"""

import hmac
import json
from typing import Final

from services.common.errors import Unauthenticated
from services.common.rpc.auth import Credentials
from services.gateway.values.principal import Principal, Role, current_principal

FORWARDED_METADATA_KEY: Final = "boatyard-forwarded"


def forwarded_metadata(cell_id: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that this cell makes on behalf of the caller of the current RPC."""
    principal = current_principal()
    caller = {
        "name": principal.name,
        "role": principal.role,
        "projects": None if principal.projects is None else sorted(principal.projects),
        "token_id": principal.token_id,
        "origin": principal.origin,
        "cell_id": cell_id,
    }
    return ((FORWARDED_METADATA_KEY, json.dumps(caller)),)  # ASCII, as metadata must be


class PeerToken:
    """Knows the token that other cells' gateways call this one with; implements `authenticator.TokenSource`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def principal(self, token: str, credentials: Credentials) -> Principal | None:
        """Return what the other gateway's caller is allowed. Raises Unauthenticated if the call names no caller."""
        if not hmac.compare_digest(token.encode(), self._token):
            return None
        try:
            caller = json.loads(credentials.text(FORWARDED_METADATA_KEY))
            projects = caller["projects"]
            return Principal(
                name=caller["name"],
                role=Role(caller["role"]),
                projects=None if projects is None else frozenset(projects),
                token_id=caller["token_id"],
                origin=caller["origin"],
                forwarded_by=caller["cell_id"],
            )
        except (ValueError, TypeError, KeyError):
            raise Unauthenticated(
                f"a cell's token needs {FORWARDED_METADATA_KEY}, which says whom the call is for",
                reason="TOKEN_REQUIRED",
            ) from None
