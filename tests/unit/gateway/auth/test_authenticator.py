"""Who is let in, to what: asked over a real server, as the gateway's callers are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.common.errors import PermissionDenied, Unauthenticated
from services.common.rpc.auth import Credentials
from services.common.rpc.auth_failures import MAX_FAILURES, FailureLimiter, TooManyFailuresError
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.gateway.auth import scope
from services.gateway.auth.authenticator import AdminToken, GatewayAuthenticator
from services.gateway.auth.current import current_access
from services.gateway.auth.model import Access, Role
from tests.kit.servers import serving
from tests.unit.common.rpc.echo import NAME, Echo, EchoStub

UNARY = f"/{NAME}/Unary"
TOKENS = {role.value: Access(role.lower(), role) for role in Role} | {
    "of-a": Access("of a", Role.OPERATOR, frozenset({"a"}))
}


class Known:
    """Knows some tokens, and counts how often it was asked; who was let in is at hand."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def is_at_hand(self, token: str) -> bool:
        return token in TOKENS and token in self.asked

    async def access(self, token: str, shown: Credentials) -> Access | None:
        self.asked.append(token)
        return TOKENS.get(token)


async def whoami(_text: str) -> str:
    access = current_access()
    return f"{access.name} {access.role}"


@asynccontextmanager
async def asking(echo: Echo, token: str | None, required: dict[str, Role]) -> AsyncIterator[EchoStub]:
    authenticator = GatewayAuthenticator([AdminToken("first"), Known()], required)
    async with (
        serving(echo.registration(), authenticator=authenticator) as server,
        open_channel(server.address, token) as channel,
    ):
        yield EchoStub(channel)


async def answer(token: str | None, required: dict[str, Role], echo: Echo | None = None) -> str:
    async with asking(echo or Echo(whoami), token, required) as stub:
        try:
            return (await stub.unary(b"x")).decode()
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from None


@pytest.mark.parametrize(
    ("required", "opened_by"),
    [
        (Role.VIEWER, {"VIEWER", "OPERATOR", "ADMIN", "first"}),
        (Role.OPERATOR, {"OPERATOR", "ADMIN", "first"}),
        (Role.ADMIN, {"ADMIN", "first"}),
        (Role.COORDINATOR, {"COORDINATOR", "ADMIN", "first"}),
    ],
)
async def test_a_role_opens_what_it_is_for(required: Role, opened_by: set[str]) -> None:
    for token in ("VIEWER", "OPERATOR", "ADMIN", "COORDINATOR", "first"):
        if token in opened_by:
            assert (await answer(token, {UNARY: required})).split()[0] in {token.lower(), "admin"}
            continue
        with pytest.raises(PermissionDenied) as refused:
            await answer(token, {UNARY: required})
        assert refused.value.reason == "ROLE_REQUIRED"
        assert refused.value.metadata == {"role": token, "required_role": required}


async def test_what_says_nothing_of_roles_is_for_administrators() -> None:
    assert await answer("first", {}) == "admin ADMIN"
    with pytest.raises(PermissionDenied):
        await answer("OPERATOR", {})


@pytest.mark.parametrize("token", [None, "nobody", "first "])
async def test_unknown_tokens_are_refused_before_roles(token: str | None) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await answer(token, {UNARY: Role.ADMIN})
    assert refused.value.reason == "TOKEN_REQUIRED"


async def test_a_token_of_one_project_sees_no_other() -> None:
    async def look(project_id: str) -> str:
        scope.check(project_id)
        return ",".join(scope.visible() or ())

    required = {UNARY: Role.VIEWER}
    async with asking(Echo(look), "of-a", required) as stub:
        assert await stub.unary(b"a") == b"a"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.unary(b"b")
        assert service_error(refused.value).reason == "PROJECT_NOT_ALLOWED"
    assert await answer("ADMIN", required, Echo(look)) == "", "one without a scope sees all"


def test_work_of_our_own_sees_everything() -> None:
    assert scope.visible() is None
    scope.check("anything")


async def test_tokens_that_come_in_a_flood_are_not_asked_about_and_who_was_let_in_stays_in() -> None:
    now = 0.0
    known = Known()
    authenticator = GatewayAuthenticator(
        [AdminToken("first"), known], {"/a/B": Role.VIEWER}, FailureLimiter(lambda: now)
    )

    async def show(token: str | None, peer: str = "ipv4:192.0.2.1:40000", *, is_again: bool = False) -> str:
        return await authenticator.authenticate(Credentials(token, "/a/B", peer, {}, is_again=is_again))

    await show("VIEWER")
    for number in range(MAX_FAILURES):
        with pytest.raises(Unauthenticated):
            await show(f"guess-{number}", f"ipv4:192.0.2.1:{number}")
    asked = len(known.asked)
    for token in ("guess", None, "OPERATOR"):
        with pytest.raises(TooManyFailuresError) as refused:
            await show(token)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1
    assert len(known.asked) == asked, "nobody was asked"
    assert [await show("first"), await show("VIEWER")] == ["admin", "viewer"]
    assert await show("OPERATOR", "ipv4:192.0.2.2:1") == "operator", "from elsewhere"
    with pytest.raises(Unauthenticated):  # and not put off: a stream whose token was revoked ends
        await show("revoked", is_again=True)
    now += 1
    assert await show("ADMIN") == "admin", "for the others it is a matter of waiting"
