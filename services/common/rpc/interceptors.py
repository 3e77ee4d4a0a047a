"""What every call to a service passes through, in one order, whatever its arity.

grpc.aio has one interceptor here, `Gate`, which wraps each handler once. A streamed answer is written from inside the
wrapper rather than yielded to gRPC: when a client leaves during a write, gRPC abandons a generator to the garbage
collector, and what stands in its `finally` would run later, in another task.
"""

import asyncio
import inspect
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import structlog
from google.rpc import status_pb2

from services.common.errors import (
    DeadlineExceeded,
    PermissionDenied,
    RemoteFailure,
    ServiceError,
    Status,
    Unauthenticated,
    Unavailable,
)
from services.common.fence import FENCE_METADATA_KEY, Fence, set_current_fence
from services.common.logs import CALLER, REQUEST_ID
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY, Authenticator, Shown
from services.common.rpc.status import DETAILS_METADATA_KEY, internal_status_proto, service_error, to_status_proto
from services.common.rpc.written import serializer

REQUEST_ID_METADATA_KEY = "boatyard-request-id"

Context = grpc.aio.ServicerContext[Any, Any]
# Generic in its stub alone: subscripting it fails at run time.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")
_RECHECK_SECONDS = 5.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WARN = {
    Status.ABORTED,
    Status.DEADLINE_EXCEEDED,
    Status.FAILED_PRECONDITION,
    Status.PERMISSION_DENIED,
    Status.RESOURCE_EXHAUSTED,
    Status.UNAUTHENTICATED,
    Status.UNAVAILABLE,
}
_ERROR = {Status.INTERNAL, Status.UNKNOWN, Status.DATA_LOSS}

log = structlog.get_logger()


@dataclass(slots=True)
class Call:
    """One incoming call. `status` and `reason` are None while it goes well.

    `request` is what is asked, or the first message of its stream; `answer` is there when one was made, and no stream.
    """

    method: str
    context: Context
    answers_once: bool
    metadata: Mapping[str, str | bytes]
    request_id: str = ""
    status: Status | None = None
    reason: str | None = None
    request: Any = None
    answer: Any = None
    started: float = field(default_factory=time.monotonic)

    @property
    def is_open(self) -> bool:
        """Whether it needs no token: health always, reflection where it is served at all."""
        return self.method.startswith(_OPEN)

    def text(self, key: str) -> str | None:
        """Return one value of the call's metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


Layer = Callable[[Call], AbstractAsyncContextManager[None]]
Inspect = Callable[[Call], Awaitable[None]]
"""Looks at a call's request before it is served, and may refuse it."""


def layers(authenticator: Authenticator, unary_limit_seconds: float, around: Sequence[Layer] = ()) -> Sequence[Layer]:
    """Return what a call passes through, the outermost first; `around` sees whole calls, refused ones too."""
    return (
        with_request_id,  # first: every line of log and every error below names the request
        with_access_log,  # outside of errors, so that it sees the status that the caller sees
        *around,  # likewise
        with_errors,  # outside of all that may refuse a call
        authenticating(authenticator),  # before anything of the request is looked at: permission before existence
        limiting_time(unary_limit_seconds),  # inside of errors, which turn its end into a status
        with_fence,  # last: only an authenticated caller's fence is worth reading
    )


class Gate(grpc.aio.ServerInterceptor):
    """Puts every handler behind the layers, and behind an inspection of what is asked."""

    def __init__(self, passed: Sequence[Layer], inspect: Inspect) -> None:
        self._layers = passed
        self._inspect = inspect
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:  # gRPC answers UNIMPLEMENTED
            return None
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._wrap(method, handler))
        return known[1]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        behaviour, build = _parts(handler)
        yields = inspect.isasyncgenfunction(behaviour)
        if not (yields or inspect.iscoroutinefunction(behaviour)):
            raise TypeError(f"{method} is served by a plain function; only `async def` is safe with grpc.aio")
        answers_once = not handler.response_streaming

        async def pass_through(request: Any, context: Context) -> Any:
            metadata = dict(context.invocation_metadata() or ())
            call = Call(method, context, answers_once, metadata)
            if not handler.request_streaming:
                call.request = request
            async with AsyncExitStack() as stack:
                for layer in self._layers:
                    await stack.enter_async_context(layer(call))
                if handler.request_streaming:
                    request = _Inspected(request, call, self._inspect)
                else:
                    await self._inspect(call)
                if not yields:
                    call.answer = await behaviour(request, context)
                    return call.answer
                async with aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        await context.write(message)
            return None

        return build(
            pass_through,
            request_deserializer=handler.request_deserializer,
            response_serializer=serializer(handler.response_serializer),
        )


class _Inspected:
    """What a client streams, with its first message inspected; no generator, for who would end one?"""

    def __init__(self, messages: AsyncIterator[Any], call: Call, inspect: Inspect) -> None:
        self._messages = aiter(messages)
        self._call = call
        self._inspect = inspect

    def __aiter__(self) -> "_Inspected":
        return self

    async def __anext__(self) -> Any:
        message = await anext(self._messages)
        if self._call.request is None:
            self._call.request = message
            await self._inspect(self._call)
        return message


async def let_pass(call: Call) -> None:
    """Inspect nothing, where being let in at all is enough."""


@asynccontextmanager
async def with_request_id(call: Call) -> AsyncIterator[None]:
    """Take the caller's request id or make one; give it to the logs, and back in the trailing metadata."""
    given = call.text(REQUEST_ID_METADATA_KEY)
    call.request_id = given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    structlog.contextvars.bind_contextvars(**{REQUEST_ID: call.request_id})
    call.context.set_trailing_metadata(((REQUEST_ID_METADATA_KEY, call.request_id),))
    yield


@asynccontextmanager
async def with_access_log(call: Call) -> AsyncIterator[None]:
    """Write one line a call: method, status, duration; at a level that says whose fault it is."""
    try:
        yield
    except asyncio.CancelledError:
        call.status = Status.CANCELLED
        raise
    except grpc.aio.AbortError:
        if call.status is None:  # health aborts by itself
            call.status = Status(call.context.code().name)
        raise
    finally:
        write = log.debug if call.is_open else log.info
        if call.status in _WARN:
            write = log.warning
        elif call.status in _ERROR:
            write = log.error
        seconds = round(time.monotonic() - call.started, 6)
        why = {} if call.reason is None else {"reason": call.reason}
        write("rpc", method=call.method, status=call.status or "OK", **why, seconds=seconds)


@asynccontextmanager
async def with_errors(call: Call) -> AsyncIterator[None]:
    """Turn what a handler raises into a status with details. Nobody else aborts."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # the client left, or its deadline passed
        # Something inside was cancelled, not the call: unanswered, its client would wait for ever (STYLE §4).
        await _abort(call, _internal(call, error))
    except Exception as error:  # noqa: BLE001 - the border: whatever is not foreseen is INTERNAL
        await _abort(call, _status_of(call, _unwrapped(error)))


def authenticating(authenticator: Authenticator) -> Layer:
    """Refuse whom `authenticator` does not know."""

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        if not call.is_open:
            header = call.text(AUTHORIZATION_METADATA_KEY) or ""
            scheme, _, token = header.partition(" ")
            known = token if scheme.lower() == "bearer" and token else None
            shown = Shown(known, call.method, call.context.peer(), call.metadata)
            structlog.contextvars.bind_contextvars(**{CALLER: await authenticator.authenticate(shown)})
            if authenticator.forgets and not call.answers_once:
                async with _while_known(authenticator, shown):
                    yield
                return
        yield

    return layer


@asynccontextmanager
async def _while_known(authenticator: Authenticator, shown: Shown) -> AsyncIterator[None]:
    """End a stream whose caller is let in no more: its token was revoked, or has expired."""
    refusal: ServiceError | None = None
    scope = asyncio.timeout(None)

    async def watch() -> None:
        nonlocal refusal
        while refusal is None:
            await asyncio.sleep(_RECHECK_SECONDS)
            try:
                await authenticator.authenticate(shown)
            except (Unauthenticated, PermissionDenied) as error:
                refusal = error
            except ServiceError as error:  # the database is away: who was let in stays in
                log.debug("a stream's caller cannot be asked for again now", error=error.message)
        scope.reschedule(0)

    watching = asyncio.create_task(watch())
    try:
        async with scope:
            yield
    except TimeoutError:
        if refusal is not None and scope.expired():
            raise refusal from None
        raise
    finally:
        watching.cancel()


def limiting_time(seconds: float) -> Layer:
    """End calls with one answer after `seconds`, whatever time their callers allow; streams may go on."""

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        allowed = call.context.time_remaining() if call.answers_once else 0.0
        if allowed is not None and allowed <= seconds:
            yield
            return
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                yield
        except TimeoutError:
            if scope.expired():
                raise DeadlineExceeded(f"the call took more than the {seconds:g} s that this service allows") from None
            raise

    return layer


@asynccontextmanager
async def with_fence(call: Call) -> AsyncIterator[None]:
    """Read the job's fence, if the call has one, for `current_fence`."""
    text = call.text(FENCE_METADATA_KEY)
    if text is not None:
        set_current_fence(Fence.parse(text))
    yield


def _status_of(call: Call, error: Exception) -> status_pb2.Status:
    match error:
        case RemoteFailure():
            return _internal(call, error)
        case ServiceError():
            call.reason = error.reason
            return to_status_proto(error, call.request_id)
        case grpc.aio.AioRpcError() if error.code() is grpc.StatusCode.UNAVAILABLE:
            log.warning("node unavailable", method=call.method, error=service_error(error).message)
            unreachable = Unavailable("NODE_UNAVAILABLE", "a service behind this one cannot be reached")
            return _status_of(call, unreachable)
        case _:
            return _internal(call, error)


def _internal(call: Call, error: BaseException) -> status_pb2.Status:
    log.error("unexpected error", method=call.method, exc_info=error)
    return internal_status_proto(call.request_id)


def _unwrapped(error: Exception) -> Exception:
    """Return what a task group wrapped, when it is one error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _abort(call: Call, status: status_pb2.Status) -> None:
    code = _CODES[status.code]
    call.status = Status(code.name)
    trailing = (
        (DETAILS_METADATA_KEY, status.SerializeToString()),
        (REQUEST_ID_METADATA_KEY, call.request_id),
    )
    await call.context.abort(code, status.message, trailing)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _parts(handler: Any) -> tuple[Any, Callable[..., Handler]]:
    """Return a handler's own function, and what makes a handler of that arity."""
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return handler.unary_unary, grpc.unary_unary_rpc_method_handler
        case False, True:
            return handler.unary_stream, grpc.unary_stream_rpc_method_handler
        case True, False:
            return handler.stream_unary, grpc.stream_unary_rpc_method_handler
        case _:
            return handler.stream_stream, grpc.stream_stream_rpc_method_handler
