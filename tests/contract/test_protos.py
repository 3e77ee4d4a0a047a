"""The rules of the API (STYLE, section 3) that buf has no lint for."""

import re
from collections import Counter

import pytest
from boatyard.access.v1 import access_pb2
from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import MethodOptions

from services.gateway.app import OWNERS
from services.gateway.door.owners import WITHOUT_PROJECT
from services.gateway.door.wire import kind_of
from tests.kit.contract import STATUSES, Method, documented_reasons, fields, files, messages, methods

PUBLIC = ("boatyard.gateway.v1", "boatyard.ledger.v1")
"""The packages that the gateway serves."""

_BOUND = re.compile(
    r"\bRequired\b|\b(?:at most|at least|up to) \d|\b\d+ to \d+|\bmore than 0\b|\b\d+ (?:[KM]iB|bytes|characters)\b",
    re.IGNORECASE,
)
_STATUS_LINE = re.compile(rf"- ({'|'.join(STATUSES)}) \([A-Z0-9_]+(, [A-Z0-9_]+)*\): .+", re.DOTALL)


@pytest.mark.parametrize("method", methods(), ids=str)
def test_every_rpc_decides_on_its_idempotency(method: Method) -> None:
    assert method.proto.options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN


@pytest.mark.parametrize("method", methods(), ids=str)
def test_every_rpc_has_a_request_and_a_response_of_its_own(method: Method) -> None:
    expected = f".{method.file.package}.{method.proto.name}"
    assert (method.proto.input_type, method.proto.output_type) == (f"{expected}Request", f"{expected}Response")


@pytest.mark.parametrize("method", methods(), ids=str)
def test_every_rpc_lists_its_statuses_and_reasons(method: Method) -> None:
    items = re.split(r"\n\s*(?=- )", method.comment.strip())[1:]
    assert items or not messages()[method.proto.input_type.lstrip(".")].field, "it takes input, and can refuse it"
    for item in items:
        assert _STATUS_LINE.fullmatch(item), f"not of the form '- STATUS (REASON): when.': {item}"


@pytest.mark.parametrize("method", [one for one in methods() if one.file.package in PUBLIC], ids=str)
def test_every_rpc_of_the_gateway_says_who_may_call_it(method: Method) -> None:
    role = method.proto.options.Extensions[access_pb2.required_role]
    assert role in access_pb2.Role.values()
    assert role != access_pb2.ROLE_UNSPECIFIED
    assert "PERMISSION_DENIED (ROLE_REQUIRED" in method.comment + method.service_comment


def test_whose_every_id_is_can_be_said() -> None:
    """For all that a request to the gateway can name: otherwise a token of one project could name another's."""
    nobodys = [
        f"{name}.{field.name}"
        for name, message in messages().items()
        if name.startswith(PUBLIC)
        for field in message.field
        if field.type == field.TYPE_STRING and field.name.endswith(("_id", "_ids"))
        if kind_of(field.name, OWNERS) is None
        if not any(f"_{field.name}".rpartition("_id")[0].endswith(f"_{kind}") for kind in WITHOUT_PROJECT)
    ]
    assert nobodys == []


def test_every_rpc_of_coordinators_says_which_one_calls() -> None:
    """Otherwise its token could not be bound to one coordinator."""
    for method in methods():
        if method.proto.options.Extensions[access_pb2.required_role] == access_pb2.ROLE_COORDINATOR:
            request = {field.name for field in messages()[method.proto.input_type.lstrip(".")].field}
            assert request & {"coordinator_id", "holder"}, method.name


def test_one_message_has_a_name() -> None:
    """Across packages, so that nobody needs to ask which Execution is meant. RPCs of one name have requests of one."""
    names = Counter(
        name.rpartition(".")[2] for name in messages() if not name.endswith(("Request", "Response", "Entry"))
    )
    assert [name for name, count in names.items() if count > 1] == []
    enums = {enum.name for file in files() for message in file.message_type for enum in message.enum_type}
    assert {"Execution", "Output", "Purpose"} & names.keys() & enums == set()


def test_verbs_are_those_of_other_services() -> None:
    """What is made is made by Create, and ended by Delete; Register is for who announces itself."""
    announced = {"RegisterCoordinator"}
    odd = {one.proto.name for one in methods() if re.match("Register|Unregister|Add|Remove|UsageOf", one.proto.name)}
    assert odd == announced


def test_what_is_created_is_a_part_of_the_request() -> None:
    for method in methods():
        noun = re.fullmatch(r"Create(\w+)", method.proto.name)
        if noun and method.file.package == "boatyard.gateway.v1":
            request = {field.name: field.type_name for field in messages()[method.proto.input_type.lstrip(".")].field}
            assert any(kind.rpartition(".")[2] in {noun[1], f"{noun[1]}Spec"} for kind in request.values()), noun[1]


@pytest.mark.parametrize("method", [one for one in methods() if one.proto.name.startswith("List")], ids=str)
def test_every_list_has_pages(method: Method) -> None:
    request = {field.name for field in messages()[method.proto.input_type.lstrip(".")].field}
    response = {field.name for field in messages()[method.proto.output_type.lstrip(".")].field}
    assert {"page_size", "page_token"} <= request
    assert "next_page_token" in response


def test_every_reason_belongs_to_one_status() -> None:
    assert {reason: statuses for reason, statuses in documented_reasons().items() if len(statuses) > 1} == {}


def test_times_are_named_times_and_nothing_is_untyped() -> None:
    wrong = []
    for name, message in messages().items():
        for field in message.field:
            if field.type_name == ".google.protobuf.Timestamp" and not re.fullmatch(r"(.*_)?time", field.name):
                wrong.append(f"{name}.{field.name}: a Timestamp is named …_time")
            if field.type_name in {".google.protobuf.Any", ".google.protobuf.Struct", ".google.protobuf.Empty"}:
                wrong.append(f"{name}.{field.name}: {field.type_name} says nothing")
            if field.name in {"id", "name_id"}:
                wrong.append(f"{name}.{field.name}: an id says whose it is")
    assert wrong == []


def test_files_are_where_their_package_says() -> None:
    for file in files():
        assert file.name.rpartition("/")[0] == file.package.replace(".", "/")
        assert len(file.service) <= 1


def test_a_comment_does_not_repeat_the_rule_of_its_field() -> None:
    """A bound stands once, as an option. What several fields have together has no option, and is said."""
    repeated = [
        f"{name}: {found[0]}"
        for name, field, comment in fields()
        if field.options.HasExtension(validate_pb2.field)
        if (found := _BOUND.search(comment)) and not re.search(r"\bin total\b|\btogether\b", comment)
    ]
    assert repeated == []
