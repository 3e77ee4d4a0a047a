"""ServiceError to `google.rpc.Status` on the way out, and back again on the caller's side.

Every error carries one ErrorInfo (reason, domain, metadata) and the detail that its status calls for, each type at
most once; `services/common/errors.py` has the list of classes, STYLE's table the list of details.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from services.common import errors
from services.common.errors import ServiceError, Status

DOMAIN = "boatyard.dev"
DETAILS_METADATA_KEY = "grpc-status-details-bin"
STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
"""gRPC's statuses by their numbers."""

# gRPC replaces responses with more than 8 KiB of metadata, the error's text included, by an error about that. The
# message is sent twice, once with three bytes for each one outside of ASCII, and the details in base 64: this fits.
_MESSAGE_BYTES = 1000
_FACT_BYTES = 300
_FACTS_BYTES = 1000

_Detail = TypeVar("_Detail", bound=Message)


def to_status_proto(error: ServiceError, request_id: str) -> status_pb2.Status:
    """Convert `error` for the wire. What callers must not see becomes INTERNAL with the request's id only."""
    if isinstance(error, errors.RemoteFailure) or error.status in {Status.UNKNOWN, Status.INTERNAL}:
        return internal_status_proto(request_id)
    room = min(_FACT_BYTES, _FACTS_BYTES // max(1, len(error.metadata)))
    facts = {key: _cut(value, room) for key, value in error.metadata.items()}
    info = details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)
    return _status_proto(error.status, _cut(error.message, _MESSAGE_BYTES), [info, *_details_of(error)])


def internal_status_proto(request_id: str) -> status_pb2.Status:
    """Return INTERNAL with a fixed text, because the error itself may name paths, addresses or secrets."""
    return _status_proto(
        Status.INTERNAL,
        "internal error",
        [details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN), details_pb2.RequestInfo(request_id=request_id)],
    )


def service_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """Return the error of one of our services, or of gRPC itself. Without details its reason is its status."""
    status = Status(error.code().name)
    described = _described(error)
    info = _detail(described, details_pb2.ErrorInfo())
    kind = _KINDS.get(status, errors.RemoteFailure)
    # Not by the class's own constructor: text and metadata are the sender's, and not made of arguments again.
    result = kind.__new__(kind)
    ServiceError.__init__(result, info.reason or status.value, error.details() or status.value, info.metadata)
    result.status = status
    _read_details(result, described)
    return result


def _read_details(error: ServiceError, described: status_pb2.Status) -> None:
    match error:
        case errors.RemoteFailure():
            if request_id := _detail(described, details_pb2.RequestInfo()).request_id:
                error.metadata[errors.REQUEST_ID] = request_id
        case errors.Invalid():
            bad = _detail(described, details_pb2.BadRequest())
            error.violations = tuple((broken.field, broken.description) for broken in bad.field_violations)
        case errors.NotFound() | errors.AlreadyExists():
            resource = _detail(described, details_pb2.ResourceInfo())
            error.resource_type, error.resource_name = resource.resource_type, resource.resource_name
        case errors.FailedPrecondition():
            error.subject = error.metadata.get("subject", "")
        case errors.Aborted():
            error.expected, error.actual = error.metadata.get("expected", ""), error.metadata.get("actual", "")
        case errors.OutOfRange():
            error.first, error.end = _integer(error, "first_offset") or 0, _integer(error, "end_offset") or 0
        case errors.Exhausted():
            exceeded = _detail(described, details_pb2.QuotaFailure()).violations
            error.retry_after, error.quota = _retry_after(described), exceeded[0].subject if exceeded else None
        case errors.Unavailable():
            error.retry_after = _retry_after(described) or 1.0
            error.resume_from = _integer(error, "resume_from")


def _details_of(error: ServiceError) -> Iterable[Message]:
    match error:
        case errors.Invalid():
            yield details_pb2.BadRequest(field_violations=_violations(error))
        case errors.NotFound() | errors.AlreadyExists():
            name = _cut(error.resource_name, _FACT_BYTES)
            yield details_pb2.ResourceInfo(resource_type=error.resource_type, resource_name=name)
        case errors.FailedPrecondition():
            broken = details_pb2.PreconditionFailure.Violation(
                type=error.reason,
                subject=_cut(error.subject, _FACT_BYTES),
                description=_cut(error.message, _FACT_BYTES),
            )
            yield details_pb2.PreconditionFailure(violations=[broken])
        case errors.Exhausted(retry_after=float() | int() as seconds) | errors.Unavailable(retry_after=seconds):
            retry_delay = duration_pb2.Duration()
            retry_delay.FromNanoseconds(int(seconds * 1e9))
            yield details_pb2.RetryInfo(retry_delay=retry_delay)
        case errors.Exhausted(quota=str() as subject):
            exceeded = details_pb2.QuotaFailure.Violation(
                subject=_cut(subject, _FACT_BYTES), description=_cut(error.message, _FACT_BYTES)
            )
            yield details_pb2.QuotaFailure(violations=[exceeded])


def _violations(error: errors.Invalid) -> Iterable[details_pb2.BadRequest.FieldViolation]:
    """Yield all violations; `Invalid` has no more than fit, the last of which may be the number of the others."""
    for field, description in error.violations:
        yield details_pb2.BadRequest.FieldViolation(
            field=_cut(field, _FACT_BYTES), description=_cut(description, _FACT_BYTES)
        )


def _cut(text: str, limit: int) -> str:
    """Cut the middle out of a text longer than `limit` bytes; replace what cannot be encoded as UTF-8."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    half = limit // 2 - 3
    return f"{encoded[:half].decode('utf-8', 'ignore')} … {encoded[-half:].decode('utf-8', 'ignore')}"


def _status_proto(status: Status, message: str, details: Iterable[Message]) -> status_pb2.Status:
    result = status_pb2.Status(code=grpc.StatusCode[status.value].value[0], message=message)
    for detail in details:
        result.details.add().Pack(detail)
    return result


def _described(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    try:
        # An AioRpcError has what from_call reads of a call, without being one by type.
        return rpc_status.from_call(cast("grpc.Call", error)) or status_pb2.Status()
    except (ValueError, DecodeError):  # the details contradict the status, or cannot be read: use the status alone
        return status_pb2.Status()


def _detail(described: status_pb2.Status, empty: _Detail) -> _Detail:
    """Fill `empty` with the detail of its type, if there is one, and return it."""
    for packed in described.details:
        if packed.Unpack(empty):
            break
    return empty


def _retry_after(described: status_pb2.Status) -> float | None:
    for packed in described.details:
        info = details_pb2.RetryInfo()
        if packed.Unpack(info):
            return info.retry_delay.ToNanoseconds() / 1e9
    return None


def _integer(error: ServiceError, key: str) -> int | None:
    text = error.metadata.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else None


_KINDS: Mapping[Status, type[ServiceError]] = {
    kind.status: kind
    for kind in ServiceError.__subclasses__()
    if kind is not errors.RemoteFailure and kind.__module__ == errors.__name__
}
