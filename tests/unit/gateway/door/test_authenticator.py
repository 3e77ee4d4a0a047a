"""Who is let in, and to what: over a real server, as the gateway's callers see it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.common.errors import PermissionDenied, Unauthenticated
from services.common.rpc.auth import Credentials
from services.common.rpc.auth_failures import MAX_FAILURES, FailureLimiter, TooManyFailuresError
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.gateway import scope
from services.gateway.door.authenticator import AdminToken, GatewayAuthenticator
from services.gateway.values.principal import Principal, Role, current_principal
from tests.kit.servers import serving
from tests.unit.common.rpc.echo import NAME, Echo, EchoStub

UNARY = f"/{NAME}/Unary"
TOKENS = {role.value: Principal(role.lower(), role) for role in Role} | {
    "of-a": Principal("of a", Role.OPERATOR, frozenset({"a"}))
}


class CountingSource:
    """Knows some tokens, and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def principal(self, token: str, credentials: Credentials) -> Principal | None:
        self.asked.append(token)
        return TOKENS.get(token)


async def whoami(_text: str) -> str:
    principal = current_principal()
    return f"{principal.name} {principal.role}"


@asynccontextmanager
async def echo_stub(echo: Echo, token: str | None, required: dict[str, Role]) -> AsyncIterator[EchoStub]:
    authenticator = GatewayAuthenticator([AdminToken("first"), CountingSource()], required)
    async with (
        serving(echo.registration(), authenticator=authenticator) as server,
        open_channel(server.address, token) as channel,
    ):
        yield EchoStub(channel)


async def answer(token: str | None, required: dict[str, Role], echo: Echo | None = None) -> str:
    async with echo_stub(echo or Echo(whoami), token, required) as stub:
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
    async with echo_stub(Echo(look), "of-a", required) as stub:
        assert await stub.unary(b"a") == b"a"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.unary(b"b")
        assert service_error(refused.value).reason == "PROJECT_NOT_ALLOWED"
    assert await answer("ADMIN", required, Echo(look)) == "", "one without a scope sees all"


def test_work_of_our_own_sees_everything() -> None:
    assert scope.visible() is None
    scope.check("anything")


async def test_a_flood_of_unknown_tokens_is_told_to_wait_and_shuts_nobody_out() -> None:
    authenticator = GatewayAuthenticator(
        [AdminToken("first"), CountingSource()], {"/a/B": Role.VIEWER}, FailureLimiter(lambda: 0.0)
    )

    async def authenticate(token: str | None, peer: str = "ipv4:192.0.2.1:40000", *, is_again: bool = False) -> str:
        return (await authenticator.identify(Credentials(token, "/a/B", peer, {}, is_again=is_again))).name

    for number in range(MAX_FAILURES):
        with pytest.raises(Unauthenticated):
            await authenticate(f"guess-{number}", f"ipv4:192.0.2.1:{number}")
    for token in ("guess", None):
        with pytest.raises(TooManyFailuresError) as refused:
            await authenticate(token)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1
    assert [await authenticate("first"), await authenticate("OPERATOR")] == ["admin", "operator"], "new or not"
    with pytest.raises(Unauthenticated):  # not TooManyFailures: a stream whose token was revoked ends
        await authenticate("revoked", is_again=True)
