"""The rules of the contract: each of them, where it is not kept; all at once; and none that is not known."""

import math
from typing import Any

import grpc
import pytest
from boatyard.rules.v1 import rules_pb2  # noqa: F401 - the tests' messages use it
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.rpc.channel import open_channel
from services.common.rpc.rules import Rules, UnknownRuleError
from services.common.rpc.server import Registration
from services.common.rpc.status import service_error
from tests.kit.protos import compiled
from tests.kit.servers import TOKEN, serving

TEXT = """
enum State { STATE_UNSPECIFIED = 0; STATE_ACTIVE = 1; STATE_DONE = 2; STATE_GONE = 3; }
message Agent {
  optional int32 max_turns = 1 [(buf.validate.field).int32 = {gte: 1 lte: 50}];
  string model = 2 [(buf.validate.field).string.max_bytes = 16];
  optional int64 memory_bytes = 3 [(buf.validate.field).int64 = {gte: 1536 lt: 1125899906842624}];
}
message File {
  string path = 1 [
    (buf.validate.field).required = true,
    (buf.validate.field).string.(boatyard.rules.v1.relative_path) = true
  ];
  bytes content = 2 [(buf.validate.field).bytes.max_len = 65536];
}
message Worker {
  string worker_id = 1 [
    (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE,
    (buf.validate.field).string.(boatyard.rules.v1.id) = true
  ];
  string title = 2 [
    (buf.validate.field).string = {[boatyard.rules.v1.not_blank]: true [boatyard.rules.v1.line]: true}
  ];
  Agent agent = 3;
}
message Everything {
  string id = 1 [(buf.validate.field).required = true, (buf.validate.field).string.(boatyard.rules.v1.id) = true];
  Worker worker = 2 [(buf.validate.field).required = true];
  repeated File files = 3 [(buf.validate.field).repeated.max_items = 3];
  map<string, string> labels = 4 [
    (buf.validate.field).map = {max_pairs: 2 keys: {string: {max_len: 3}} values: {string: {max_len: 3}}}
  ];
  google.protobuf.Duration timeout = 5 [(buf.validate.field).duration = {gt: {} lte: {seconds: 604800}}];
  google.protobuf.Timestamp time = 6;
  State state = 7 [(buf.validate.field).enum = {in: [1, 2]}];
  repeated State states = 8 [
    (buf.validate.field).repeated = {unique: true items: {enum: {defined_only: true not_in: [0]}}}
  ];
  double cost = 9 [(buf.validate.field).double.gte = 0];
  oneof source {
    option (buf.validate.oneof).required = true;
    string branch = 10 [(buf.validate.field).string.(boatyard.rules.v1.branch) = true];
    string commit = 11;
  }
  map<string, File> more = 12;
  Everything inner = 13;
  string size = 14 [
    (buf.validate.field).string = {in: ["small", "large"]},
    (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE
  ];
  string scheme = 15 [
    (buf.validate.field).string = {prefix: "https://" pattern: "^[a-z:/]+$"},
    (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE
  ];
}
message UpdateRequest {
  Worker worker = 1 [(buf.validate.field).required = true];
  google.protobuf.FieldMask update_mask = 2;
}
message DoResponse {}
service TestService {
  rpc Do(Everything) returns (DoResponse);
  rpc DoMany(stream File) returns (DoResponse);
}
"""
KINDS = compiled("rules", TEXT)
Everything = KINDS["Everything"]


def valid(**values: Any) -> Any:
    good = {"id": "a", "worker": {"title": "t"}, "state": 1, "branch": "work"}
    return Everything(**good | values)


def complaints(message: Any) -> dict[str, str]:
    return dict(Rules().violations(message))


def test_a_valid_message_has_no_violations() -> None:
    assert complaints(valid()) == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"id": ""}, ("id", "is required")),
        ({"id": "A"}, ("id", "must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter or a digit")),
        ({"id": "a\n"}, ("id", "must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter or a digit")),
        ({"worker": None}, ("worker", "is required")),
        ({"worker": {}}, ("worker.title", "is required")),
        ({"worker": {"title": " \t"}}, ("worker.title", "is required")),
        ({"worker": {"title": "\u3000\u00a0"}}, ("worker.title", "is required")),
        ({"worker": {"title": "a\nb"}}, ("worker.title", "must be one line of at most 255 characters")),
        ({"worker": {"title": "é" * 256}}, ("worker.title", "must be one line of at most 255 characters")),
        ({"worker": {"title": "t", "agent": {"max_turns": 0}}}, ("worker.agent.max_turns", "must be from 1 to 50")),
        ({"worker": {"title": "t", "agent": {"model": "é" * 9}}}, ("worker.agent.model", "must be at most 16 bytes")),
        (
            {"worker": {"title": "t", "agent": {"memory_bytes": 1}}},
            ("worker.agent.memory_bytes", "must be at least 1536 bytes, and less than 1 PiB"),
        ),
        ({"files": [{"path": "a"}] * 4}, ("files", "must be at most 3 entries")),
        ({"files": [{"path": "a"}, {}]}, ("files[1].path", "is required")),
        ({"files": [{"path": "a", "content": b"x" * 65537}]}, ("files[0].content", "must be at most 64 KiB")),
        ({"labels": {"a": "1", "b": "2", "c": "3"}}, ("labels", "must be at most 2 entries")),
        ({"labels": {"abcd": "1"}}, ('labels["abcd"]', "must be at most 3 characters")),
        ({"labels": {"a": "1234"}}, ('labels["a"]', "must be at most 3 characters")),
        ({"timeout": {}}, ("timeout", "must be more than 0 s, and at most 7 days")),
        ({"timeout": {"seconds": 604800, "nanos": 1}}, ("timeout", "must be more than 0 s, and at most 7 days")),
        ({"time": {"seconds": 253402300800}}, ("time", "must be a time from the year 1 to 9999")),
        ({"state": 0}, ("state", "must be ACTIVE or DONE")),
        ({"state": 3}, ("state", "must be ACTIVE or DONE")),
        ({"states": [1, 0]}, ("states[1]", "must be ACTIVE, DONE or GONE")),
        ({"states": [1, 9]}, ("states[1]", "must be ACTIVE, DONE or GONE")),
        ({"states": [1, 1]}, ("states", "must not have anything twice")),
        ({"cost": -0.5}, ("cost", "must not be negative")),
        ({"cost": math.nan}, ("cost", "must not be negative")),
        ({"branch": None}, ("source", "is required: branch or commit")),
        ({"branch": "a..b"}, ("branch", "must be a name that git allows for a branch")),
        ({"more": {"x": {}}}, ('more["x"].path', "is required")),
        ({"inner": valid(cost=-1)}, ("inner.cost", "must not be negative")),
        ({"size": "medium"}, ("size", "must be small or large")),
        ({"scheme": "http://a"}, ("scheme", "must begin with 'https://'")),
        ({"scheme": "https://A"}, ("scheme", "must match ^[a-z:/]+$")),
    ],
)
def test_what_is_wrong_is_said_with_its_path(values: dict[str, Any], expected: tuple[str, str]) -> None:
    assert list(complaints(valid(**values)).items()) == [expected]


def test_a_list_that_is_too_long_is_not_looked_into() -> None:
    assert list(complaints(valid(files=[{}] * 4))) == ["files"]


def test_everything_wrong_is_said_at_once_with_what_the_service_checks() -> None:
    def has_content(file: Any) -> list[tuple[str, str]]:
        return [] if file.content else [("content", "is empty"), ("path", "is of an empty file")]

    message = Everything(files=[{"path": "a", "content": b"x"}, {"path": "/"}, {"path": "b"}], state=1)
    found = Rules({"boatyard.test.rules.File": has_content}).violations(message)
    (of_path,) = (text for path, text in found if path == "files[1].path")
    assert of_path.startswith("must be a relative path"), "of a field, the first complaint is said"
    assert {path for path, _ in found} == {
        "id",
        "worker",
        "files[1].content",
        "files[1].path",
        "files[2].content",
        "files[2].path",
        "source",
    }


def test_of_an_update_only_what_the_mask_names_is_checked() -> None:
    worker = {"worker_id": "A", "agent": {"max_turns": 0, "model": "m" * 17}}
    update = KINDS["UpdateRequest"]

    def paths(*mask: str) -> set[str]:
        return complaints(update(worker=worker, update_mask=FieldMask(paths=mask))).keys()

    assert paths() == {"worker.worker_id"}
    assert paths("title") == {"worker.worker_id", "worker.title"}
    assert paths("agent.model") == {"worker.worker_id", "worker.agent.model"}
    assert paths("agent") == {"worker.worker_id", "worker.agent.max_turns", "worker.agent.model"}
    assert complaints(update()).keys() == {"worker"}


@pytest.mark.parametrize(
    "field",
    [
        'string a = 1 [(buf.validate.field).cel = {id: "x" message: "y" expression: "this != \'\'"}]',
        "string a = 1 [(buf.validate.field).string.email = true]",
        "int32 a = 1 [(buf.validate.field).string.max_len = 1]",
        "string a = 1 [(buf.validate.field).string.(boatyard.rules.v1.id) = false]",
        'string a = 1 [(buf.validate.field).string.pattern = "^\\\\d$"]',
        'string a = 1 [(buf.validate.field).string.pattern = "a(?=b)"]',
        "int32 a = 1 [(buf.validate.field).int32 = {gt: 2 lt: 1}]",
        "State a = 1 [(buf.validate.field).enum.not_in = 0]; enum State { STATE_UNSPECIFIED = 0; }",
        "repeated string a = 1 [(buf.validate.field).string.max_len = 1]",
        "repeated string a = 1 [(buf.validate.field).repeated.items.required = true]",
        "repeated string a = 1 [(buf.validate.field).repeated.items.ignore = IGNORE_IF_ZERO_VALUE]",
        "google.protobuf.Duration a = 1 [(buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE]",
        'option (buf.validate.message).cel = {id: "x" message: "y" expression: "true"}; string a = 1',
    ],
)
def test_an_option_that_is_not_evaluated_is_no_rule_that_is_ignored(field: str, request: Any) -> None:
    name = f"unknown{request.node.callspec.indices['field']}"
    message = compiled(name, f"message Message {{ {field}; }}")["Message"]
    with pytest.raises(UnknownRuleError):
        Rules().violations(message())


def _add(servicer: object, server: grpc.aio.Server) -> None:
    async def do(request: Any, context: Any) -> Any:
        return KINDS["DoResponse"]()

    async def do_many(requests: Any, context: Any) -> Any:
        async for _ in requests:
            pass
        return KINDS["DoResponse"]()

    made = {"request_deserializer": Everything.FromString, "response_serializer": KINDS["DoResponse"].SerializeToString}
    handlers = {
        "Do": grpc.unary_unary_rpc_method_handler(do, **made),
        "DoMany": grpc.stream_unary_rpc_method_handler(
            do_many, **made | {"request_deserializer": KINDS["File"].FromString}
        ),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("boatyard.test.rules.TestService", handlers),)
    )


async def test_a_server_holds_every_message_to_the_rules_after_authentication() -> None:
    registration = Registration("boatyard.test.rules.TestService", _add, None)
    made = {"request_serializer": lambda message: message.SerializeToString()}
    async with serving(registration) as server:
        async with open_channel(server.address, TOKEN) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/boatyard.test.rules.TestService/Do", **made)(valid(cost=-1, id=""))
            assert dict(service_error(refused.value).violations) == {
                "id": "is required",
                "cost": "must not be negative",
            }
            files = [KINDS["File"](path="a"), KINDS["File"](path="/")]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.stream_unary("/boatyard.test.rules.TestService/DoMany", **made)(iter(files))
            assert [path for path, _ in service_error(refused.value).violations] == ["path"]
        async with open_channel(server.address, None) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/boatyard.test.rules.TestService/Do", **made)(Everything())
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_service_with_a_rule_that_is_not_evaluated_does_not_start() -> None:
    message = "message A { string a = 1 [(buf.validate.field).string.email = true]; }"
    compiled("unstarted", f"{message} service S {{ rpc Do(A) returns (A); }}")
    with pytest.raises(UnknownRuleError):
        async with serving(Registration("boatyard.test.unstarted.S", lambda *_: None, None)):
            pass


async def test_a_service_with_a_check_that_is_never_called_does_not_start() -> None:
    never = Registration("boatyard.test.rules.TestService", _add, None, {"boatyard.test.rules.Fiel": lambda _: ()})
    with pytest.raises(UnknownRuleError, match="Fiel"):
        async with serving(never):
            pass
