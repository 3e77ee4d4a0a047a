"""The RPCs of tokens: from the wire to the store and back."""

from typing import Any

from boatyard.gateway.v1 import auth_pb2 as pb
from boatyard.gateway.v1.auth_pb2_grpc import TokenServiceServicer
from grpc import aio

from services.common.home import new_token
from services.gateway import scope
from services.gateway.door.tokens import wire
from services.gateway.door.tokens.cache import CachedTokens
from services.gateway.door.tokens.store import TokenStore
from services.gateway.values.principal import current_principal
from services.gateway.wire.requests import idempotency_key, page_from_proto

Context = aio.ServicerContext[Any, Any]


class TokenServicer(TokenServiceServicer):
    """Serves boatyard.gateway.v1.TokenService."""

    def __init__(self, tokens: TokenStore, cache: CachedTokens) -> None:
        self._tokens = tokens
        self._cache = cache

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        scope.check_all()
        secret = new_token()
        token = wire.token_from_proto(request, current_principal().name)
        token = await self._tokens.create(token, secret, idempotency_key(request))
        self._cache.clear()
        return pb.CreateTokenResponse(token=wire.token_to_proto(token), secret=secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        scope.check_all()
        tokens, following = await self._tokens.page(page_from_proto(request), ended=request.include_ended)
        return pb.ListTokensResponse(tokens=map(wire.token_to_proto, tokens), next_page_token=following)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        scope.check_all()
        token = await self._tokens.revoke(request.token_id)
        self._cache.clear()
        return pb.RevokeTokenResponse(token=wire.token_to_proto(token))
