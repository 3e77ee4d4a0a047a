"""The one interceptor of a server: it wraps each handler, of any arity, in the layers that every call passes through.

To gRPC every handler takes a stream, so that a request is neither awaited nor parsed before its caller is known.

A streamed response is written inside the wrapper and not yielded to gRPC: when a client disconnects during a write,
gRPC leaves a generator to the garbage collector, and its `finally` would run later, in another task.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from services.common.errors import Invalid, Status
from services.common.rpc.arrivals import Arrivals
from services.common.rpc.bounds import Bounds
from services.common.rpc.call import REQUEST_ID_METADATA_KEY, Context, Inspect, Layer, RpcCall, Screen
from services.common.rpc.peers import address_of
from services.common.rpc.preserialized import serializer
from services.common.rpc.rules import Rules
from services.common.rpc.status import DETAILS_METADATA_KEY, STATUS_CODES

Parse: TypeAlias = Callable[[bytes], Any]
Serve: TypeAlias = Callable[[AsyncIterator[bytes], Context], Coroutine[Any, Any, Any]]
# Generic in its stub alone: subscripting it fails at run time.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler in the layers, inspects its requests and holds them to the rules, screens its responses."""

    def __init__(self, passed: Sequence[Layer], inspect: Inspect, rules: Rules, screen: Screen, bounds: Bounds) -> None:
        self._layers = passed
        self._inspect = inspect
        self._rules = rules
        self._screen = screen
        self._unknown = _unknown_method(bounds)
        self._arrivals = Arrivals()
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._unknown
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._wrap(method, handler))
        return known[1]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        behaviour = _behaviour(handler)
        yields = inspect.isasyncgenfunction(behaviour)
        if not (yields or inspect.iscoroutinefunction(behaviour)):
            raise TypeError(f"{method} is served by a plain function; only `async def` is safe with grpc.aio")
        answers_once = not handler.response_streaming
        parse = _parser(handler.request_deserializer)

        async def pass_through(messages: AsyncIterator[bytes], context: Context) -> Any:
            metadata = dict(context.invocation_metadata() or ())
            call = RpcCall(method, context, answers_once, metadata)

            async def receive() -> Any:
                return parse(await self._arrivals.request(context))

            if not handler.request_streaming:
                call.receive = receive
            async with AsyncExitStack() as stack:
                for layer in self._layers:
                    await stack.enter_async_context(layer(call))
                if handler.request_streaming:
                    request = _Inspected(messages, parse, call, self._inspect, self._rules)
                else:
                    await call.read()
                    request = call.request
                    await self._inspect(call)
                    self._rules.enforce(request)
                if not yields:
                    call.answer = await behaviour(request, context)
                    return self._screen(call.answer)
                await self._send(behaviour(request, context), call)
            if call.failure is not None:
                await _abort(call, call.failure)
            return None

        build = grpc.stream_unary_rpc_method_handler if answers_once else grpc.stream_stream_rpc_method_handler
        return build(_without_cycles(pass_through), response_serializer=serializer(handler.response_serializer))

    async def _send(self, answers: AsyncGenerator[Any, None], call: RpcCall) -> None:
        async with aclosing(answers):
            async for message in answers:
                try:
                    await call.context.write(self._screen(message))
                except grpc.aio.InternalError:
                    # The client has disconnected; our cancellation is still on its way.
                    call.status = Status.CANCELLED
                    return


def _without_cycles(serve: Serve) -> Serve:
    """Free what an aborted call has used as soon as it ends.

    gRPC's call refers to the error that aborted it, whose traceback refers to the frames, and these to the call. In a
    flood of refusals the collector of such cycles stopped everything for 0.2 s, every other second.
    """

    async def served(messages: AsyncIterator[bytes], context: Context) -> Any:
        serving = serve(messages, context)
        del messages, context
        try:
            return await serving
        except grpc.aio.AbortError as error:
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same error

    return served


class _Inspected:
    """A client's stream: its first message is inspected, and all are held to the rules.

    Not a generator, because nobody would close it.
    """

    def __init__(
        self, messages: AsyncIterator[bytes], parse: Parse, call: RpcCall, inspect: Inspect, rules: Rules
    ) -> None:
        self._messages = aiter(messages)
        self._parse = parse
        self._call = call
        self._inspect = inspect
        self._rules = rules

    def __aiter__(self) -> "_Inspected":
        return self

    async def __anext__(self) -> Any:
        message = self._parse(await anext(self._messages))
        if self._call.request is None:
            self._call.request = message
            await self._inspect(self._call)
        self._rules.enforce(message)
        return message


async def _abort(call: RpcCall, failure: status_pb2.Status) -> None:
    """End a call with its failure. Nobody else aborts."""
    details = (DETAILS_METADATA_KEY, failure.SerializeToString())
    trailing = (details, (REQUEST_ID_METADATA_KEY, call.request_id))
    await call.context.abort(STATUS_CODES[failure.code], failure.message, trailing)


def _unknown_method(bounds: Bounds) -> Handler:
    """Return the handler of methods that do not exist: it answers as gRPC does, and no faster than other refusals."""

    async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
        await bounds.delay(address_of(context.peer()), 0)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    return grpc.stream_stream_rpc_method_handler(_without_cycles(refuse))


def _parser(deserialize: Parse | None) -> Parse:
    """Return what parses a method's requests. It raises Invalid for what cannot be parsed."""
    if deserialize is None:
        return lambda data: data

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise Invalid([("request", f"cannot be read: {error}")]) from None

    return parse


def _behaviour(handler: Any) -> Any:
    """Return a handler's own function."""
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return handler.unary_unary
        case False, True:
            return handler.unary_stream
        case True, False:
            return handler.stream_unary
        case _:
            return handler.stream_stream
