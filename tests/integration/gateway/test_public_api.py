"""The whole public API from outside: each RPC of a real gateway refuses what it must, with the details it must."""

import itertools
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.common.rpc.channel import open_channel
from tests.kit import contract
from tests.kit.gateway import METHODS, answers, running_gateway

COMMENTS = {method.name.removeprefix("boatyard.gateway.v1."): method.comment for method in contract.methods()}

# Wrong in one way or more; what is not here is wrong when it is empty.
BAD: dict[str, dict] = {
    **{name: {"page_size": -1} for name in METHODS if name.partition(".")[2].startswith(("List", "UsageOf"))},
    "AgentRuntimeService.WatchExecution": {"execution_id": "No", "from_sequence": -1},
    "JobService.WatchJobs": {"from_position": -1},
    **{f"AdminService.{verb}Cell": {"cell_id": "No"} for verb in ("Pause", "Resume", "Stop", "Restart")},
    "CheckpointService.WatchCheckpoints": {"job_id": "No"},
    "AgentRuntimeService.SendMessage": {"execution_id": "No", "message_id": "No", "text": ""},
    "AgentRuntimeService.ResolvePermission": {"execution_id": "No", "permission_id": "", "reason": "x" * 5000},
}


def _named_first() -> Iterator[tuple[str, tuple[dict, str]]]:
    """Yield the RPCs that may not find what the first field of their request names, with a request of that alone."""
    for name, method in METHODS.items():
        if method.input_type.fields:
            field = method.input_type.fields[0].name
            reason = field.removesuffix("_id").upper() + "_NOT_FOUND"
            if f"NOT_FOUND ({reason}" in COMMENTS[name]:
                yield name, ({field: "nothing"}, reason)


# A request for something that does not exist, and the reason of the refusal.
UNKNOWN: dict[str, tuple[dict, str]] = {
    **dict(_named_first()),
    "AgentRuntimeService.Execute": (
        {"worker_id": "nobody", "work_item_id": "nothing", "prompt": "x"},
        "WORKER_NOT_FOUND",
    ),
    "AgentRuntimeService.SendMessage": (
        {"execution_id": "nothing", "message_id": "one", "text": "x"},
        "EXECUTION_NOT_FOUND",
    ),
    "AgentRuntimeService.ResolvePermission": (
        {"execution_id": "nothing", "permission_id": "one"},
        "EXECUTION_NOT_FOUND",
    ),
    "AgentRuntimeService.BranchWorkspace": ({"workspace_id": "nothing", "branch": "b"}, "WORKSPACE_NOT_FOUND"),
    "AgentRuntimeService.CommitWorkspace": ({"workspace_id": "nothing", "message": "m"}, "WORKSPACE_NOT_FOUND"),
    "AgentRuntimeService.PushWorkspace": ({"workspace_id": "nothing"}, "WORKSPACE_NOT_FOUND"),
    "AgentRuntimeService.ReadArtifact": ({"execution_id": "nothing", "name": "a"}, "EXECUTION_NOT_FOUND"),
    "JobService.CreateJob": ({"spec": {"prompt": "x", "repository_id": "nothing"}}, "REPOSITORY_NOT_FOUND"),
    "JobService.RetryJob": ({"job_id": "nothing"}, "JOB_NOT_FOUND"),
    "JobService.PushJob": ({"job_id": "nothing"}, "JOB_NOT_FOUND"),
    "BudgetService.CreateBudget": (
        {"budget": {"project_id": "nowhere", "limits": {"requests": 1}}},
        "PROJECT_NOT_FOUND",
    ),
    "BudgetService.UpdateBudget": (
        {"budget": {"budget_id": "nothing", "limits": {"requests": 1}}, "update_mask": {"paths": ["limits"]}},
        "BUDGET_NOT_FOUND",
    ),
    "HookService.CreateHook": (
        {"hook": {"project_id": "nowhere", "event": "EVENT_PRE", "command": "true"}},
        "PROJECT_NOT_FOUND",
    ),
    "HookService.UpdateHook": (
        {"hook": {"hook_id": "nothing", "command": "true"}, "update_mask": {"paths": ["command"]}},
        "HOOK_NOT_FOUND",
    ),
    **{
        f"CatalogService.Update{kind.title().replace('_', '')}": (
            {
                kind: {f"{kind}_id": "nothing", field: True if field == "disabled" else "x"},
                "update_mask": {"paths": [field]},
            },
            f"{kind.upper()}_NOT_FOUND",
        )
        for kind, field in (
            ("project", "display_name"),
            ("repository", "default_revision"),
            ("provider", "disabled"),
            ("template", "display_name"),
            ("worker", "display_name"),
            ("work_item", "title"),
        )
    },
    **{
        f"CheckpointService.{name}": ({"checkpoint_id": "nothing", **said}, "CHECKPOINT_NOT_FOUND")
        for name, said in (
            ("RejectCheckpoint", {"reason": "no"}),
            ("RequestChanges", {"comment": "more"}),
        )
    },
    "TokenService.CreateToken": ({"token": {"role": "ROLE_VIEWER", "project_ids": ["nowhere"]}}, "PROJECT_NOT_FOUND"),
    "CatalogService.MoveWorkItem": ({"work_item_id": "nothing", "state": "STATE_DONE"}, "WORK_ITEM_NOT_FOUND"),
    "CatalogService.CreateProject": (
        {"project": {"project_id": "x", "default_worker_id": "nobody"}},
        "WORKER_NOT_FOUND",
    ),
    "CatalogService.SetProjectSecret": (
        {"project_id": "nowhere", "name": "KEY", "value": "long-enough"},
        "PROJECT_NOT_FOUND",
    ),
    "CatalogService.DeleteProjectSecret": ({"project_id": "nowhere", "name": "KEY"}, "PROJECT_NOT_FOUND"),
    "CatalogService.CreateRepository": (
        {"repository": {"project_id": "nowhere", "url": "/srv/git/x"}},
        "PROJECT_NOT_FOUND",
    ),
    "CatalogService.CreateProvider": (
        {"provider": {"project_id": "nowhere", "wire": "MODEL_WIRE_CHAT", "base_url": "https://a.example"}},
        "PROJECT_NOT_FOUND",
    ),
    "CatalogService.CreateTemplate": ({"template": {"project_id": "nowhere"}}, "PROJECT_NOT_FOUND"),
    "CatalogService.CreateWorker": ({"worker": {"template_id": "nothing"}}, "TEMPLATE_NOT_FOUND"),
    "CatalogService.CreateWorkItem": (
        {"work_item": {"title": "x", "repository_id": "nothing"}},
        "REPOSITORY_NOT_FOUND",
    ),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as address_and_token:
        yield address_and_token


async def fail(gateway: tuple[str, str | None], name: str, fields: dict) -> tuple[grpc.StatusCode, dict[str, Message]]:
    """Call a method that must fail; return its status, and its details by their names."""
    address, token = gateway
    request = GetMessageClass(METHODS[name].input_type)(**fields)
    async with open_channel(address, token) as channel:
        for _ in range(20 if METHODS[name].client_streaming else 1):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answers(channel, METHODS[name], request)
            # A stream may be refused before its first message is written: grpc.aio's client then may say that it could
            # not write, and not what the server told it.
            if described := rpc_status.from_call(caught.value):
                break
    assert described, (name, caught.value)
    details: dict[str, Message] = {}
    for packed in described.details:
        detail = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])()
        assert packed.Unpack(detail)
        details[type(detail).__name__] = detail
    assert details["ErrorInfo"].domain == "boatyard.dev"
    reason = details["ErrorInfo"].reason
    assert reason == "TOKEN_REQUIRED" or reason in COMMENTS[name], "the contract must name the reason"
    return caught.value.code(), details


# In turn, for an address that fails 100 times is not looked at any more.
@pytest.mark.parametrize(("name", "token"), list(zip(METHODS, itertools.cycle([None, "not-the-token"]), strict=False)))
async def test_nobody_gets_in_without_the_token(gateway: tuple[str, str], name: str, token: str | None) -> None:
    code, details = await fail((gateway[0], token), name, {})
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert details["ErrorInfo"].reason == "TOKEN_REQUIRED"


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.input_type.fields])
async def test_bad_input_is_refused_field_by_field(gateway: tuple[str, str], name: str) -> None:
    code, details = await fail(gateway, name, BAD.get(name, {}))
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    fields = {field.name for field in METHODS[name].input_type.fields}
    for violation in details["BadRequest"].field_violations:
        assert violation.field.partition(".")[0].partition("[")[0] in fields
        assert violation.description
    wrong = set(BAD.get(name, {}))
    assert wrong <= {violation.field for violation in details["BadRequest"].field_violations}, "all at once"


@pytest.mark.parametrize("name", UNKNOWN)
async def test_what_is_not_there_is_named(gateway: tuple[str, str], name: str) -> None:
    fields, reason = UNKNOWN[name]
    code, details = await fail(gateway, name, fields)
    assert (code, details["ErrorInfo"].reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert details["ResourceInfo"].resource_name in {"nothing", "nobody", "nowhere"}
    assert reason.lower() == details["ResourceInfo"].resource_type.replace(" ", "_") + "_not_found"


def test_every_rpc_that_may_miss_something_is_asked() -> None:
    assert {name for name, comment in COMMENTS.items() if name in METHODS and "NOT_FOUND (" in comment} == set(UNKNOWN)
