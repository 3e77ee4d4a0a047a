"""A caller that comes through another cell is allowed what it was allowed there, and nothing more."""

import pytest

from services.common.errors import Unauthenticated
from services.common.rpc.auth import Credentials
from services.gateway.routing.forwarding import FORWARDED_METADATA_KEY, PeerToken, forwarded_metadata
from services.gateway.values.principal import Principal, Role, set_current_principal

CALLER = Principal("Zoë", Role.VIEWER, frozenset({"b", "a"}), token_id="token-1", origin="ipv4:10.0.0.1:2")


def credentials(metadata: dict[str, str | bytes]) -> Credentials:
    return Credentials("peers", "/a/B", "ipv4:10.0.0.2:3", metadata)


@pytest.mark.parametrize("caller", [CALLER, Principal("admin", Role.ADMIN, origin="ipv4:10.0.0.1:2")])
async def test_a_caller_stays_who_it_is(caller: Principal) -> None:
    set_current_principal(caller)
    metadata = forwarded_metadata("cell-1")
    assert all(text.isascii() for _, text in metadata), "gRPC takes nothing else"
    arrived = await PeerToken("peers").principal("peers", credentials(dict(metadata)))
    assert arrived is not None
    assert (arrived.name, arrived.role, arrived.projects) == (caller.name, caller.role, caller.projects)
    assert (arrived.token_id, arrived.origin, arrived.forwarded_by) == (caller.token_id, caller.origin, "cell-1")


async def test_only_the_cells_own_token_is_believed() -> None:
    assert await PeerToken("peers").principal("another", credentials(dict(forwarded_metadata("cell-1")))) is None


@pytest.mark.parametrize("caller", [None, "", "{}", "[]", "null", '{"name": "x"}', '{"role": "KING", "projects": []}'])
async def test_a_cell_that_does_not_say_for_whom_is_refused(caller: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await PeerToken("peers").principal(
            "peers", credentials({} if caller is None else {FORWARDED_METADATA_KEY: caller})
        )
