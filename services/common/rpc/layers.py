"""The layers that every call to a service passes through, in a fixed order."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import grpc
import structlog
from google.rpc import status_pb2

from services.common.errors import (
    DeadlineExceeded,
    Exhausted,
    PermissionDenied,
    RemoteFailure,
    ServiceError,
    Status,
    Unauthenticated,
    Unavailable,
)
from services.common.fence import FENCE_METADATA_KEY, Fence, set_current_fence
from services.common.logs import CALLER, REQUEST_ID
from services.common.room import DISK, RESOURCE, is_out_of_room
from services.common.rpc.auth import AUTHORIZATION_METADATA_KEY, Authenticator, Caller, Credentials, bearer
from services.common.rpc.auth_failures import TooManyFailuresError
from services.common.rpc.bounds import Bounds, TooManyCallsError
from services.common.rpc.call import REQUEST_ID_METADATA_KEY, Layer, RpcCall
from services.common.rpc.connections import Connections
from services.common.rpc.peers import address_of
from services.common.rpc.status import STATUS_CODES, internal_status_proto, service_error, to_status_proto
from services.common.shortage import is_shortage
from services.common.turns import OURSELVES, set_current_turns

_RECHECK_SECONDS = 5.0
_ROOM_SECONDS = 10.0
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


def layers(
    authenticator: Authenticator,
    unary_limit_seconds: float,
    around: Sequence[Layer] = (),
    bounds: Bounds | None = None,
    connections: Connections | None = None,
) -> Sequence[Layer]:
    """Return the layers, the outermost first; those of `around` see all calls, also refused ones."""
    bounds, connections = bounds or Bounds(), connections or Connections()
    return (
        with_request_id,  # first: every line of log and every error below names the request
        with_access_log,  # outside of errors, so that it sees the status that the caller sees
        *around,  # likewise
        with_status,  # inside of the layers that need to know how a call ended
        with_errors,  # outside of everything that may refuse a call
        delaying(bounds),  # outside of the places that are held, so that who waits holds none
        admitting(authenticator, bounds, connections),  # before the request is read: permission before existence
        limiting_time(unary_limit_seconds),  # inside of errors, which turn its end into a status
        with_fence,  # last: the fence is only read of an authenticated caller
    )


@asynccontextmanager
async def with_request_id(call: RpcCall) -> AsyncIterator[None]:
    """Use the caller's request id or make one; add it to the logs, and return it in the trailing metadata."""
    sent = call.text(REQUEST_ID_METADATA_KEY)
    call.request_id = sent if sent and _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
    structlog.contextvars.bind_contextvars(**{REQUEST_ID: call.request_id})
    call.context.set_trailing_metadata(((REQUEST_ID_METADATA_KEY, call.request_id),))
    yield


@asynccontextmanager
async def with_access_log(call: RpcCall) -> AsyncIterator[None]:
    """Log each call in a line: method, status, duration; the level says whose fault a failure is."""
    try:
        yield
    finally:
        write = log.debug if call.is_open or call.is_quiet else log.info
        if call.status in _WARN and not call.is_quiet:
            write = log.warning
        elif call.status in _ERROR:
            write = log.error
        seconds = round(time.monotonic() - call.started, 6)
        why = {} if call.reason is None else {"reason": call.reason}
        write("rpc", method=call.method, status=call.status or "OK", **why, seconds=seconds)


@asynccontextmanager
async def with_status(call: RpcCall) -> AsyncIterator[None]:
    """Record the status of a call that ends without passing `with_errors`."""
    try:
        yield
    except asyncio.CancelledError:
        call.status = Status.CANCELLED
        raise
    except grpc.aio.AbortError:
        if call.status is None:  # health aborts by itself
            call.status = Status(call.context.code().name)
        raise


@asynccontextmanager
async def with_errors(call: RpcCall) -> AsyncIterator[None]:
    """Turn what a handler raises into a status with details, which is the call's `failure`."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # the client disconnected, or its deadline passed
        # Something inside was cancelled, and not the call: without an answer its client would wait for ever (STYLE §4).
        _fail(call, _internal(call, error))
    except Exception as error:  # noqa: BLE001 - the border: whatever is not foreseen is INTERNAL
        _fail(call, _status_of(call, _unwrapped(error)))


def delaying(bounds: Bounds) -> Layer:
    """Make callers wait for their refusal who call too much."""

    @asynccontextmanager
    async def layer(call: RpcCall) -> AsyncIterator[None]:
        try:
            yield
        except (TooManyFailuresError, TooManyCallsError):
            await bounds.delay(call.counted_by)
            raise

    return layer


def admitting(authenticator: Authenticator, bounds: Bounds, connections: Connections) -> Layer:
    """Refuse callers that `authenticator` does not accept, and calls for which there is no room."""

    @asynccontextmanager
    async def layer(call: RpcCall) -> AsyncIterator[None]:
        token = bearer(call.text(AUTHORIZATION_METADATA_KEY) or "")
        credentials = Credentials(token, call.method, call.context.peer(), call.metadata)
        call.counted_by = address_of(credentials.peer)
        if token is not None or not call.is_open:
            caller = await _identified(authenticator, credentials, is_needed=not call.is_open)
            if caller is not None:
                call.counted_by = caller.counted_by
                connections.note(credentials.peer, caller.counted_by)
                structlog.contextvars.bind_contextvars(**{CALLER: caller.name})
        set_current_turns(call.counted_by or OURSELVES)
        with bounds.open(call):
            if call.is_open:
                await bounds.pace(call.counted_by)
                yield
                return
            await _authorize(authenticator, credentials, call)
            if not authenticator.may_revoke or call.answers_once:
                yield
                return
            async with _while_known(authenticator, credentials):
                yield

    return layer


async def _identified(authenticator: Authenticator, credentials: Credentials, *, is_needed: bool) -> Caller | None:
    """Return who calls. Where that is not needed, None for a caller that is not known or cannot be looked up now."""
    try:
        return await authenticator.identify(credentials)
    except ServiceError:
        if is_needed:
            raise
        return None


async def _authorize(authenticator: Authenticator, credentials: Credentials, call: RpcCall) -> None:
    try:
        authenticator.authorize(credentials)
    except PermissionDenied:
        with suppress(ServiceError):  # for the record of what this caller has tried
            await call.read()
        raise


@asynccontextmanager
async def _while_known(authenticator: Authenticator, credentials: Credentials) -> AsyncIterator[None]:
    """End a stream when its caller is no longer accepted: its token was revoked or has expired."""
    refusal: ServiceError | None = None
    scope = asyncio.timeout(None)
    credentials = replace(credentials, is_again=True)

    async def watch() -> None:
        nonlocal refusal
        while refusal is None:
            await asyncio.sleep(_RECHECK_SECONDS)
            try:
                await authenticator.identify(credentials)
                authenticator.authorize(credentials)
            except (Unauthenticated, PermissionDenied) as error:
                refusal = error
            except ServiceError as error:  # the database is away: a caller that was accepted stays accepted
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
    """End calls with one response after `seconds`, whatever their deadlines; streams may continue."""

    @asynccontextmanager
    async def layer(call: RpcCall) -> AsyncIterator[None]:
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
async def with_fence(call: RpcCall) -> AsyncIterator[None]:
    """Read the job's fence, if the call has one, for `current_fence`."""
    text = call.text(FENCE_METADATA_KEY)
    if text is not None:
        set_current_fence(Fence.parse(text))
    yield


def _status_of(call: RpcCall, error: Exception) -> status_pb2.Status:
    match error:
        case RemoteFailure():
            return _internal(call, error)
        case ServiceError():
            call.reason = error.reason
            call.is_quiet = isinstance(error, TooManyFailuresError | TooManyCallsError) and error.is_told
            return to_status_proto(error, call.request_id)
        case grpc.aio.AioRpcError() if error.code() is grpc.StatusCode.UNAVAILABLE:
            log.warning("node unavailable", method=call.method, error=service_error(error).message)
            unreachable = Unavailable("NODE_UNAVAILABLE", "a service behind this one cannot be reached")
            return _status_of(call, unreachable)
        case OSError() if is_out_of_room(error):
            log.warning("a call failed for lack of room", method=call.method, error=str(error))
            text = "a disk of this service has no room: make some, and ask again"
            return _status_of(call, Exhausted("DISK_FULL", text, retry_after=_ROOM_SECONDS, metadata={RESOURCE: DISK}))
        case _ if is_shortage(error):
            log.warning("the machine is busy", method=call.method, exc_info=error)
            return _status_of(call, Unavailable("MACHINE_BUSY", "the machine has no room for this call now: ask again"))
        case _:
            return _internal(call, error)


def _internal(call: RpcCall, error: BaseException) -> status_pb2.Status:
    log.error("unexpected error", method=call.method, exc_info=error)
    return internal_status_proto(call.request_id)


def _unwrapped(error: Exception) -> Exception:
    """Return what a task group wrapped, when it is one error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _fail(call: RpcCall, failure: status_pb2.Status) -> None:
    call.failure = failure
    call.status = Status(STATUS_CODES[failure.code].name)
