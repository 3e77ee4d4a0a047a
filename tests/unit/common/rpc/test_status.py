"""Every error arrives at the caller as the class that was raised, with its facts."""

import grpc
import pytest
from google.rpc import error_details_pb2 as details_pb2

from services.common import errors
from services.common.errors import ServiceError, Status
from services.common.rpc.status import DETAILS_METADATA_KEY, DOMAIN, service_error, to_status_proto

EXAMPLES: list[tuple[ServiceError, set[str]]] = [
    (errors.Invalid([("a.b", "is empty"), ("c", "is long")], reason="REQUEST_ID_REUSED"), {"BadRequest"}),
    (errors.NotFound("work item", "w-1"), {"ResourceInfo"}),
    (errors.AlreadyExists("workspace", "w-1"), {"ResourceInfo"}),
    (
        errors.FailedPrecondition("JOB_STATE", "over", "job-1", state="FAILED", allowed_states=["PENDING", "RUNNING"]),
        {"PreconditionFailure"},
    ),
    (errors.Aborted("REF_MOVED", "moved", expected="a", actual="b"), set()),
    (errors.OutOfRange(5, 9, reason="EVENTS_OUT_OF_RANGE"), set()),
    (errors.Exhausted("TOO_MANY", "full", retry_after=2.5), {"RetryInfo"}),
    (errors.Exhausted("QUOTA", "used up", quota="project-1"), {"QuotaFailure"}),
    (errors.Unauthenticated("who?", reason="TOKEN_REQUIRED"), set()),
    (errors.PermissionDenied("no"), set()),
    (errors.DeadlineExceeded("late"), set()),
    (errors.Unavailable("DRAINING", "later", retry_after=0.25, resume_from=0), {"RetryInfo"}),
]


def arrived(error: ServiceError) -> ServiceError:
    """Send `error` as the interceptor does, and read it as callers do."""
    status = to_status_proto(error, "request-1")
    trailing = grpc.aio.Metadata((DETAILS_METADATA_KEY, status.SerializeToString()))
    code = {code.value[0]: code for code in grpc.StatusCode}[status.code]
    return service_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, status.message))


@pytest.mark.parametrize(("error", "details"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_round_trip(error: ServiceError, details: set[str]) -> None:
    back = arrived(error)
    assert type(back) is type(error)
    assert {**vars(back), "status": back.status} == {**vars(error), "status": error.status}
    assert str(back) == str(error)


@pytest.mark.parametrize(("error", "details"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_one_error_info_and_the_details_of_its_status(error: ServiceError, details: set[str]) -> None:
    status = to_status_proto(error, "request-1")
    names = [detail.TypeName().rpartition(".")[2] for detail in status.details]
    assert sorted(names) == sorted({"ErrorInfo", *details})
    info = details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, DOMAIN)


def test_every_class_has_an_example() -> None:
    known = {kind for kind in ServiceError.__subclasses__() if kind.__module__ == errors.__name__}
    assert known - {type(error) for error, _ in EXAMPLES} == {errors.RemoteFailure}


def test_states_travel_as_data() -> None:
    back = arrived(errors.FailedPrecondition("JOB_STATE", "over", "j", state="FAILED", allowed_states=["A", "B"]))
    assert (back.metadata["state"], back.metadata["allowed_states"]) == ("FAILED", "A,B")


@pytest.mark.parametrize(("given", "text"), [(4, "x" * 290), (900, "x" * 290), (900, "is empty")])
def test_violations_that_do_not_fit_are_counted(given: int, text: str) -> None:
    violations = [(f"files[{number}]", text) for number in range(given)]
    back = arrived(errors.Invalid(violations))
    assert isinstance(back, errors.Invalid)
    *told, (_, others) = back.violations
    assert told == violations[: len(told)]
    assert others == f"and {given - len(told)} more"
    assert vars(arrived(back)) == vars(back), "another service that passes it on changes nothing"


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
@pytest.mark.parametrize(
    "trailing", [b"", b"\xff", to_status_proto(errors.NotFound("x", "y"), "r").SerializeToString()]
)
def test_any_status_can_be_read_even_with_details_that_are_none(code: grpc.StatusCode, trailing: bytes) -> None:
    if code is grpc.StatusCode.OK:
        return
    metadata = grpc.aio.Metadata((DETAILS_METADATA_KEY, trailing))
    error = service_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, "text"))
    assert (error.status, error.reason, error.message) == (Status(code.name), code.name, "text")
