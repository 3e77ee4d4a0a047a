"""Every RPC of the public API, called with tokens that are for less: what they see, and that nothing else shows."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version

import grpc
import pytest
import pytest_asyncio
from boatyard.access.v1 import access_pb2
from boatyard.gateway.v1 import coordinator_pb2
from boatyard.gateway.v1.auth_pb2 import CreateTokenResponse
from boatyard.gateway.v1.job_pb2 import WatchJobRequest
from boatyard.gateway.v1.job_pb2_grpc import JobServiceStub
from boatyard.ledger.v1 import ledger_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.common.errors import ServiceError
from services.common.ids import new_id
from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from services.common.rpc.streaming import streaming
from services.gateway.app import OWNERS
from services.gateway.door.scope_check import CHECKED_BY_THE_SERVICE
from services.gateway.door.wire import kind_of
from tests.kit import gateway
from tests.kit.gateway import answers, running_gateway

METHODS = gateway.METHODS | {
    f"{service.name}.{method.name}": method
    for file in (coordinator_pb2, ledger_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
SECRET = "s3cret-value"
AGENT = {"command": {"line": "true"}, "environment": {"API_URL": SECRET}}
THINGS = {
    "repository": {"url": "/srv/git/x"},
    "provider": {"wire": 3, "base_url": "https://api.example.com", "keys": [SECRET]},
    "template": {"agent": AGENT},
    "worker": {"agent": AGENT},
    "work_item": {"title": "x"},
}
CHECK_THEMSELVES = {path.rpartition(".")[2].replace("/", ".") for path in CHECKED_BY_THE_SERVICE}
ROLES = {name: METHODS[name].GetOptions().Extensions[access_pb2.required_role] for name in METHODS}


@dataclass
class House:
    """A running gateway with two projects, `a` and `b`, and a way to call it."""

    address: str
    admin: str
    channels: AsyncExitStack
    open: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)

    async def ask(self, token: str, name: str, request: dict | Message) -> list[Message]:
        """Call a method; return all that it answers, or raise what it refuses with."""
        message = GetMessageClass(METHODS[name].input_type)(**request) if isinstance(request, dict) else request
        if token not in self.open:
            self.open[token] = await self.channels.enter_async_context(open_channel(self.address, token))
        for _ in range(20):
            try:
                return await answers(self.open[token], METHODS[name], message)
            except grpc.aio.AioRpcError as error:
                refusal = service_error(error)
                # grpc.aio's client may lose the answer to a stream that was refused; so it is asked again.
                if not (METHODS[name].client_streaming and refusal.reason == "INTERNAL"):
                    raise refusal from None
        raise AssertionError(f"{name} is never answered")

    async def make(self, project: str) -> dict[str, str]:
        """Make one of everything in a project; return their ids by their kinds."""
        ids = {"project": project}
        await self.ask(self.admin, "CatalogService.CreateProject", {"project": {"project_id": project}})
        for kind, fields in THINGS.items():
            thing_id = ids[kind] = f"{project}-{kind.replace('_', '-')}"
            rpc = f"CatalogService.Create{kind.title().replace('_', '')}"
            await self.ask(self.admin, rpc, {kind: {f"{kind}_id": thing_id, "project_id": project, **fields}})
        spec = {"project_id": project, "prompt": f"of {project}", "agent": AGENT}
        spec |= {"work_item_id": ids["work_item"], "worker_id": ids["worker"], "repository_id": ids["repository"]}
        (made,) = await self.ask(self.admin, "JobService.CreateJob", {"spec": spec})
        ids |= {"job": made.job.job_id, "execution": made.job.execution_ids[-1]}
        ids["snapshot"] = ids["execution"].replace("exec-", "snap-")
        hook = {"project_id": project, "event": "EVENT_PRE", "command": f"true of {project}"}
        (registered,) = await self.ask(self.admin, "HookService.CreateHook", {"hook": hook})
        webhook = {"url": f"https://hooks.example.com/{SECRET}"}
        hook = {"project_id": project, "event": "EVENT_POST", "webhook": webhook}
        await self.ask(self.admin, "HookService.CreateHook", {"hook": hook})
        return ids | {"hook": registered.hook.hook_id}

    async def token(self, role: str, *projects: str, coordinator_id: str = "") -> str:
        return (await self.made_token(role, *projects, coordinator_id=coordinator_id)).secret

    async def made_token(self, role: str, *projects: str, coordinator_id: str = "") -> CreateTokenResponse:
        token = {"role": f"ROLE_{role}", "project_ids": projects, "name": " and ".join(projects) or role}
        request = {"token": token | {"coordinator_id": coordinator_id}}
        (made,) = await self.ask(self.admin, "TokenService.CreateToken", request)
        return made


@pytest_asyncio.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("access")
    with running_gateway(directory, BOATYARD_GATEWAY_MAX_JOBS="0") as (address, admin):
        async with AsyncExitStack() as channels:
            built = House(address, admin, channels)
            yield await furnished(built)


async def furnished(built: House) -> House:
    for project in ("a", "b"):
        built.ids[project] = await built.make(project)
    for role in ("VIEWER", "OPERATOR", "COORDINATOR", "ADMIN"):
        built.tokens[role] = await built.token(role)
    built.tokens["a"] = await built.token("ADMIN", "a")
    built.tokens["a and c"] = await built.token("ADMIN", "a", "default")
    return built


def filled(descriptor: Descriptor, ids: dict[str, str], depth: int = 0) -> Message:
    """Make a request in which every field that names something has the id of that kind."""
    message = GetMessageClass(descriptor)()
    for one in descriptor.fields:
        if one.containing_oneof is not None and message.WhichOneof(one.containing_oneof.name):
            continue
        kind = kind_of(one.name, OWNERS)
        if one.type == FieldDescriptor.TYPE_STRING and kind:
            value = ids.get(kind, f"{kind.replace('_', '-')}-of-nobody")
            if one.is_repeated:
                getattr(message, one.name).append(value)
            else:
                setattr(message, one.name, value)
        elif one.message_type is not None and not one.message_type.GetOptions().map_entry and depth < 3:
            inner = filled(one.message_type, ids, depth + 1)
            if inner.ByteSize():
                part = getattr(message, one.name)
                (part.add() if one.is_repeated else part).CopyFrom(inner)
    return message


async def refusal(house: House, token: str, name: str, request: dict | Message) -> ServiceError:
    with pytest.raises(ServiceError) as refused:
        await house.ask(token, name, request)
    return refused.value


async def outcome(house: House, token: str, name: str, request: Message) -> tuple[object, ...]:
    try:
        return tuple(map(MessageToJson, await house.ask(token, name, request)))
    except ServiceError as error:
        return told(error)


def told(error: ServiceError) -> tuple[object, ...]:
    return error.status, error.reason, error.message, error.metadata


@pytest.mark.parametrize("name", METHODS)
async def test_a_token_opens_what_its_role_is_for_and_nothing_else(house: House, name: str) -> None:
    required = access_pb2.Role.Name(ROLES[name]).removeprefix("ROLE_")
    opened_by = {
        "VIEWER": {"VIEWER", "OPERATOR"},
        "OPERATOR": {"OPERATOR"},
        "COORDINATOR": {"COORDINATOR"},
        "ADMIN": set(),
    }[required]
    for role in {"VIEWER", "OPERATOR", "COORDINATOR"} - opened_by:
        refused = await refusal(house, house.tokens[role], name, {})
        assert (refused.status, refused.reason) == ("PERMISSION_DENIED", "ROLE_REQUIRED")
        assert refused.metadata == {"role": role, "required_role": required}


@pytest.mark.parametrize("name", METHODS)
async def test_a_token_of_one_project_cannot_tell_another_ones_things_from_nothing(house: House, name: str) -> None:
    """Neither by an answer, nor by the difference between two refusals."""
    token, descriptor = house.tokens["a"], METHODS[name].input_type
    others = filled(descriptor, house.ids["b"])
    if not others.ByteSize():  # it names nothing
        found = ""
        try:
            found = "".join(map(MessageToJson, await house.ask(token, name, {})))
        except ServiceError as error:
            assert error.reason in {"PROJECT_NOT_ALLOWED", "INVALID_FIELDS"}  # noqa: PT017 - or it answers, without them
        assert [thing for thing in house.ids["b"].values() if f'"{thing}"' in found] == []
        return
    nothing = {kind: f"{kind.replace('_', '-')}-of-nobody" for kind in house.ids["b"]}
    if name in CHECK_THEMSELVES:
        assert await outcome(house, token, name, others) == await outcome(
            house, token, name, filled(descriptor, nothing)
        )
        return
    refused = await refusal(house, token, name, others)
    assert (refused.status, refused.reason) == ("PERMISSION_DENIED", "PROJECT_NOT_ALLOWED")
    assert told(refused) == told(await refusal(house, token, name, filled(descriptor, nothing)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name, kind in itertools.product(METHODS, ("project", *THINGS, "job", "execution", "hook", "snapshot"))
        if name not in CHECK_THEMSELVES
        if any(kind_of(one.name, OWNERS) == kind for one in METHODS[name].input_type.fields)
    ],
)
async def test_one_foreign_name_is_enough_to_be_refused(house: House, name: str, kind: str) -> None:
    """Among its own, which are let through: so each name is looked at."""
    own = house.ids["a"] | {kind: house.ids["b"][kind]}
    refused = await refusal(house, house.tokens["a"], name, filled(METHODS[name].input_type, own))
    assert refused.reason == "PROJECT_NOT_ALLOWED"


async def test_who_only_looks_is_told_names_and_no_secret(house: House) -> None:
    """Of an agent's environment, in whatever it stands; whoever has work done can have an agent print it anyway."""
    job = {"job_id": house.ids["a"]["job"]}
    for name, request, told_to_operators in (
        ("CatalogService.GetTemplate", {"template_id": house.ids["a"]["template"]}, True),
        ("CatalogService.ListTemplates", {}, True),
        ("CatalogService.GetWorker", {"worker_id": house.ids["a"]["worker"]}, True),
        ("CatalogService.ListWorkers", {}, True),
        ("JobService.GetJob", job, True),
        ("HookService.ListHooks", {}, False),
    ):
        (seen,) = await house.ask(house.tokens["VIEWER"], name, request)
        assert SECRET not in MessageToJson(seen), name
        assert ("hooks.example.com" if "Hook" in name else "API_URL") in MessageToJson(seen), name
        (seen,) = await house.ask(house.tokens["OPERATOR"], name, request)
        assert (SECRET in MessageToJson(seen)) == told_to_operators, name
        (seen,) = await house.ask(house.admin, name, request)
        assert SECRET in MessageToJson(seen), name
    channel = house.open[house.tokens["VIEWER"]]
    async with streaming(JobServiceStub(channel).WatchJob(WatchJobRequest(**job), timeout=20)) as watched:
        seen = await anext(aiter(watched))
    assert dict(seen.job.spec.agent.environment) == {"API_URL": ""}


async def test_a_token_of_one_project_works_in_it(house: House) -> None:
    token, own = house.tokens["a"], house.ids["a"]
    for name, kind in (
        ("CatalogService.GetRepository", "repository"),
        ("CatalogService.GetWorkItem", "work_item"),
        ("JobService.GetJob", "job"),
        ("AgentRuntimeService.GetExecution", "execution"),
    ):
        (answer,) = await house.ask(token, name, {f"{kind}_id": own[kind]})
        assert own[kind] in MessageToJson(answer)
    for name, kind in (
        ("CatalogService.ListProjects", "project"),
        ("CatalogService.ListWorkItems", "work_item"),
        ("JobService.ListJobs", "job"),
        ("AgentRuntimeService.ListExecutions", "execution"),
        ("HookService.ListHooks", "hook"),
    ):
        (answer,) = await house.ask(token, name, {"page_size": 1})
        assert f'"{own[kind]}"' in MessageToJson(answer), f"{name}, though the other project has newer ones"
    (answer,) = await house.ask(token, "AgentRuntimeService.ListWorkspaces", {})
    assert answer.workspaces == []


async def test_what_a_token_of_one_project_makes_is_of_that_project(house: House) -> None:
    (made,) = await house.ask(house.tokens["a"], "CatalogService.CreateWorkItem", {"work_item": {"title": "mine"}})
    assert made.work_item.project_id == "a"
    spec = {"prompt": "mine", "agent": {"command": {"line": "true"}}}
    (made,) = await house.ask(house.tokens["a"], "JobService.CreateJob", {"spec": spec})
    assert made.job.spec.project_id == "a"
    hook = {"event": "EVENT_PRE", "command": "true", "all_projects": True}
    assert (await refusal(house, house.tokens["a"], "HookService.CreateHook", {"hook": hook})).reason == (
        "PROJECT_NOT_ALLOWED"
    )
    (made,) = await house.ask(house.tokens["a and c"], "JobService.CreateJob", {"spec": spec})
    assert made.job.spec.project_id == "default"


async def test_a_path_on_the_machine_is_named_by_a_token_of_all_projects(house: House) -> None:
    """It is reached with the rights of the cell's account, so it could be another project's repository."""
    operator = await house.token("OPERATOR", "a")
    for url in ("/srv/git/paths/x", "file:///srv/git/paths/y"):
        request = {"repository": {"project_id": "a", "url": url}}
        for token in (operator, house.tokens["a"]):
            refused = await refusal(house, token, "CatalogService.CreateRepository", request)
            assert refused.reason == "PROJECT_NOT_ALLOWED"
        await house.ask(house.tokens["OPERATOR"], "CatalogService.CreateRepository", request)
    request = {"repository": {"project_id": "a", "url": "https://git.example/x.git"}}
    (made,) = await house.ask(operator, "CatalogService.CreateRepository", request)
    moved = {"repository": {"repository_id": made.repository.repository_id, "url": "/srv/git/x"}}
    moved |= {"update_mask": FieldMask(paths=["url"])}
    refused = await refusal(house, house.tokens["a"], "CatalogService.UpdateRepository", moved)
    assert refused.reason == "PROJECT_NOT_ALLOWED"
    kept = {"repository": {"repository_id": house.ids["a"]["repository"], "default_revision": "main"}}
    kept |= {"update_mask": FieldMask(paths=["default_revision"])}
    await house.ask(house.tokens["a"], "CatalogService.UpdateRepository", kept)


async def test_the_same_words_of_two_callers_are_two_requests(house: House) -> None:
    request = {"request_id": "same-words", "work_item": {"title": "whose?"}}
    (made,) = await house.ask(house.tokens["a"], "CatalogService.CreateWorkItem", request)
    assert made.work_item.project_id == "a"
    (made,) = await house.ask(house.tokens["ADMIN"], "CatalogService.CreateWorkItem", request)
    assert made.work_item.project_id == "default", "ids belong to their project"
    both = {"request_id": "same-words-again", "work_item": {"title": "whose?", "project_id": "a"}}
    await house.ask(house.tokens["a"], "CatalogService.CreateWorkItem", both)
    refused = await refusal(house, house.tokens["ADMIN"], "CatalogService.CreateWorkItem", both)
    assert refused.reason == "REQUEST_ID_REUSED", "of a caller who sees other projects"


async def test_an_id_of_another_project_cannot_be_taken_nor_a_project_made(house: House) -> None:
    taken = {"template": {"template_id": house.ids["b"]["template"]}}
    assert (await refusal(house, house.tokens["a"], "CatalogService.CreateTemplate", taken)).reason == (
        "PROJECT_NOT_ALLOWED"
    )
    for project in ("a", "new", ""):
        request = {"project": {"project_id": project}}
        refused = await refusal(house, house.tokens["a"], "CatalogService.CreateProject", request)
        assert refused.reason == "PROJECT_NOT_ALLOWED"


async def test_a_coordinators_token_is_the_first_ones_that_shows_it(house: House) -> None:
    register = "CoordinatorService.RegisterCoordinator"
    first, second = await house.token("COORDINATOR"), await house.token("COORDINATOR")
    await house.ask(first, register, {"coordinator_id": "barge-1"})
    for token, name, owner in ((first, "barge-2", "barge-1"), (second, "barge-1", "")):
        refused = await refusal(house, token, register, {"coordinator_id": name})
        assert (refused.status, refused.reason) == ("PERMISSION_DENIED", "COORDINATOR_NOT_ALLOWED")
        assert refused.metadata == {"coordinator_id": name, "coordinator_id_of_token": owner}
        assert f"--coordinator {name}" in refused.message
    await house.ask(second, register, {"coordinator_id": "barge-2"})
    await house.ask(house.admin, register, {"coordinator_id": "barge-1"})
    holder = {"holder": {"coordinator_id": "barge-2", "lease": {"job_id": house.ids["a"]["job"], "fence": 1}}}
    refused = await refusal(house, first, "LedgerService.ReadAttempt", holder)
    assert refused.reason == "COORDINATOR_NOT_ALLOWED", "our own driver's RPCs too"
    request = {"token": {"role": "ROLE_VIEWER", "coordinator_id": "barge-1"}}
    assert (await refusal(house, house.admin, "TokenService.CreateToken", request)).reason == "INVALID_FIELDS"


@pytest.mark.slow
async def test_a_coordinator_of_an_earlier_version_waits_and_is_told_why(house: House) -> None:
    """What it is refused with must be what its code waits out, so that it keeps its jobs until it is upgraded."""
    token = await house.token("COORDINATOR")
    await house.ask(token, "CoordinatorService.RegisterCoordinator", {"coordinator_id": "barge-4", "version": "0.0.9"})
    holder = ledger_pb2.Holder(coordinator_id="barge-4", lease={"job_id": house.ids["a"]["job"], "fence": 1})
    request = ledger_pb2.ReadAttemptRequest(holder=holder).SerializeToString()
    asked = ledger_pb2.ReadJobStatusesRequest(coordinator_id="barge-4", jobs=["job-1"]).SerializeToString()

    async def refused(name: str, sent: bytes) -> ServiceError:
        call = house.open[token].unary_unary(f"/boatyard.gateway.v1.LedgerService/{name}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(sent, timeout=5.0)
        return service_error(caught.value)

    calls = [refused(name, request) for name in ("ReadAttempt", "ReadSurroundings", "BeginStage", "FinishJob")]
    for answer in await asyncio.gather(*calls, refused("ReadStandings", asked)):
        assert (answer.status, answer.reason) == ("PERMISSION_DENIED", "COORDINATOR_VERSION")
        assert answer.metadata["coordinator_version"] == "0.0.9"
        assert answer.metadata["gateway_version"] == version("boatyard")
        assert "version 0.0.9" in answer.message
        assert "upgrade the coordinator" in answer.message
    claims = {"coordinator_id": "barge-4", "request_id": new_id("claim")}
    claim = await refusal(house, token, "CoordinatorService.ClaimJob", claims)
    assert (claim.status, claim.reason) == ("PERMISSION_DENIED", "COORDINATOR_VERSION")
    assert "version 0.0.9" in claim.message, "it could not read the job, and would lose an attempt of it"
    (audit,) = await house.ask(house.admin, "AuditService.ListAuditRecords", {"page_size": 1000})
    assert "COORDINATOR_VERSION" not in {record.reason for record in audit.records}, "it asks every few seconds"


async def test_a_coordinators_token_is_replaced_while_it_holds_a_job(house: House) -> None:
    await house.ask(house.admin, "CatalogService.CreateProject", {"project": {"project_id": "moving"}})
    spec = {"project_id": "moving", "prompt": "Do it.", "agent": AGENT}
    (job,) = await house.ask(house.admin, "JobService.CreateJob", {"spec": spec})
    old = await house.made_token("COORDINATOR", "moving", coordinator_id="barge-3")
    (claimed,) = await house.ask(old.secret, "CoordinatorService.ClaimJob", {"coordinator_id": "barge-3"})
    assert claimed.job.lease.job_id == job.job.job_id
    new = await house.token("COORDINATOR", "moving", coordinator_id="barge-3")
    await house.ask(house.admin, "TokenService.RevokeToken", {"token_id": old.token.token_id})
    mine = {"coordinator_id": "barge-3"}
    (renewed,) = await house.ask(new, "CoordinatorService.RenewLease", mine | {"leases": [claimed.job.lease]})
    assert list(renewed.held_job_ids) == [job.job.job_id]
    (context,) = await house.ask(new, "CoordinatorService.GetWorkContext", mine | {"lease": claimed.job.lease})
    assert dict(context.agent.environment) == AGENT["environment"], "who carries it out is told all of it"
    assert (await refusal(house, old.secret, "CoordinatorService.RenewLease", mine)).reason == "TOKEN_REQUIRED"


async def test_who_did_what_is_recorded_and_no_secret(house: House) -> None:
    spec = {"project_id": "a", "prompt": "a-secret-of-the-request", "agent": {"command": {"line": "true"}}}
    (made,) = await house.ask(house.tokens["OPERATOR"], "JobService.CreateJob", {"spec": spec})
    job_id = made.job.job_id
    await house.ask(house.tokens["a"], "JobService.GetJob", {"job_id": job_id})
    await refusal(house, house.tokens["VIEWER"], "JobService.CancelJob", {"job_id": job_id})
    await refusal(house, "boatyard_" + "x" * 43, "JobService.GetJob", {"job_id": job_id})
    await house.ask(house.tokens["a"], "JobService.CancelJob", {"job_id": job_id})
    await refusal(house, house.tokens["a"], "JobService.CancelJob", {"job_id": job_id})

    async def written() -> list[Message]:
        request = {"resource_id": job_id, "page_size": 1000}
        (answer,) = await house.ask(house.admin, "AuditService.ListAuditRecords", request)
        return list(answer.records)

    async with asyncio.timeout(20):
        while len(records := await written()) < 4:
            await asyncio.sleep(0.05)
    assert [(record.method, record.caller, record.status, record.reason) for record in reversed(records)] == [
        ("JobService/CreateJob", "OPERATOR", "OK", ""),
        ("JobService/CancelJob", "VIEWER", "PERMISSION_DENIED", "ROLE_REQUIRED"),
        ("JobService/CancelJob", "a", "OK", ""),
        ("JobService/CancelJob", "a", "FAILED_PRECONDITION", "JOB_STATE"),
    ]
    assert all(record.origin.startswith("ipv4:127.0.0.1:") and record.token_id for record in records)
    assert len({record.cell_id for record in records}) == 1
    (answer,) = await house.ask(house.admin, "AuditService.ListAuditRecords", {"only_refused": True, "page_size": 1000})
    refused = {(record.method, record.caller, record.reason) for record in answer.records}
    assert {("JobService/CancelJob", "VIEWER", "ROLE_REQUIRED"), ("JobService/GetJob", "", "TOKEN_REQUIRED")} <= refused
    (everything,) = await house.ask(house.admin, "AuditService.ListAuditRecords", {"page_size": 1000})
    text = MessageToJson(everything)
    assert "a-secret-of-the-request" not in text
    assert not [token for token in (house.admin, *house.tokens.values()) if token in text]
