"""Updates by mask, deletions and moves as callers have them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1.agent_pb2 import AgentSettings, CommandEngine
from boatyard.gateway.v1 import catalog_pb2 as pb
from boatyard.gateway.v1 import job_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.errors import FailedPrecondition, Invalid, NotFound
from tests.kit.catalog import Stubs, refusal, serving_catalog

AGENT = AgentSettings(
    model="m", command=CommandEngine(line="c"), timeout=Duration(seconds=5), environment={"A": "1", "B": "2"}
)


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving_catalog(tmp_path) as stubs:
        yield stubs


async def template(stubs: Stubs) -> pb.Template:
    wanted = pb.Template(template_id="kind", display_name="Kind", agent=AGENT)
    return (await stubs.catalog.CreateTemplate(pb.CreateTemplateRequest(template=wanted))).template


async def update(stubs: Stubs, paths: list[str], **fields) -> pb.Template:
    request = pb.UpdateTemplateRequest(
        template=pb.Template(template_id="kind", **fields), update_mask=FieldMask(paths=paths)
    )
    return (await stubs.catalog.UpdateTemplate(request)).template


async def test_a_mask_names_what_changes(stubs: Stubs) -> None:
    expected = await template(stubs)
    changed = await update(
        stubs, ["agent.model", "agent.environment"], agent={"model": "n", "command": {"line": "ignored"}}
    )
    expected.agent.model = "n"
    expected.agent.environment.clear()
    assert changed == expected
    changed = await update(stubs, ["agent.timeout", "agent.model", "display_name"], agent={"model": ""})
    expected.agent.ClearField("timeout")
    expected.agent.model = ""  # set, to nothing: it hides what lies below
    expected.display_name = ""
    assert changed == expected
    changed = await update(stubs, ["agent", "policy"], policy={"verify_command": "make"})
    expected.agent.Clear()
    expected.policy.verify_command = "make"
    assert changed == expected
    assert (await stubs.catalog.GetTemplate(pb.GetTemplateRequest(template_id="kind"))).template == expected


async def test_a_mask_reaches_into_the_settings_of_an_engine(stubs: Stubs) -> None:
    expected = await template(stubs)
    changed = await update(stubs, ["agent.command.terminal"], agent={"command": {"terminal": True}})
    expected.agent.command.terminal = True
    assert changed == expected
    changed = await update(stubs, ["agent.anthropic.max_tokens"], agent={"anthropic": {"max_tokens": 5}})
    expected.agent.anthropic.max_tokens = 5
    assert changed == expected, "another engine replaces the settings of the one before"
    changed = await update(stubs, ["agent.command.line"])
    assert changed.agent == expected.agent, "there is no command to clear, and the engine stays"
    changed = await update(stubs, ["agent.command", "agent.anthropic"])
    expected.agent.ClearField("engine")
    assert changed == expected


async def test_a_repository_keeps_its_token_when_something_else_changes(stubs: Stubs) -> None:
    wanted = pb.Repository(repository_id="repo", url="https://example.com/p", token="hunter2")
    await stubs.catalog.CreateRepository(pb.CreateRepositoryRequest(repository=wanted))

    async def change(paths: list[str], **fields) -> pb.Repository:
        repository = pb.Repository(repository_id="repo", **fields)
        request = pb.UpdateRepositoryRequest(repository=repository, update_mask=FieldMask(paths=paths))
        return (await stubs.catalog.UpdateRepository(request)).repository

    after = await change(["url"], url="https://example.com/q")
    assert (after.url, after.has_token, after.token) == ("https://example.com/q", True, "")
    error = await refusal(change(["url"], url="git@example.com:q"), Invalid)
    assert [field for field, _ in error.violations] == ["repository.token"], "a token is for https"
    assert not (await change(["token"])).has_token
    assert (await change(["url"], url="git@example.com:q")).url == "git@example.com:q"


@pytest.mark.parametrize(
    ("paths", "fields", "violated"),
    [
        ([], {}, ["update_mask"]),
        (["nothing"], {}, ["update_mask"]),
        (["agent.nothing"], {}, ["update_mask"]),
        (["display_name.x"], {}, ["update_mask"]),
        (["agent.timeout.seconds"], {}, ["update_mask"]),
        (["agent.environment.key"], {}, ["update_mask"]),
        (["agent.timeout."], {"agent": {"timeout": Duration(seconds=-1)}}, ["update_mask"]),
        (["agent."], {"agent": {"max_turns": -1}}, ["update_mask"]),
        (["create_time.seconds"], {}, ["update_mask"]),
        (["template_id", "project_id", "create_time"], {}, ["update_mask"] * 3),
        (["display_name", "agent"], {"display_name": "\n"}, ["template.display_name"]),
        (["agent.model"], {"agent": {"model": "\n"}}, ["template.agent.model"]),
    ],
)
async def test_masks_and_values_that_are_refused(
    stubs: Stubs, paths: list[str], fields: dict, violated: list[str]
) -> None:
    before = await template(stubs)
    error = await refusal(update(stubs, paths, **fields), Invalid)
    assert [field for field, _ in error.violations] == violated
    assert (await stubs.catalog.GetTemplate(pb.GetTemplateRequest(template_id="kind"))).template == before


async def test_what_is_missing_in_an_update(stubs: Stubs) -> None:
    error = await refusal(stubs.catalog.UpdateTemplate(pb.UpdateTemplateRequest()), Invalid)
    assert {field for field, _ in error.violations} == {"template", "template.template_id", "update_mask"}
    assert (await refusal(update(stubs, ["display_name"]), NotFound)).reason == "TEMPLATE_NOT_FOUND"


async def test_deleting(stubs: Stubs) -> None:
    await template(stubs)
    worker = pb.Worker(worker_id="ann", template_id="kind")
    await stubs.catalog.CreateWorker(pb.CreateWorkerRequest(worker=worker))

    async def delete() -> None:
        await stubs.catalog.DeleteTemplate(pb.DeleteTemplateRequest(template_id="kind"))

    error = await refusal(delete(), FailedPrecondition)
    assert (error.reason, error.subject, error.metadata["needed_by"]) == ("TEMPLATE_IN_USE", "kind", "worker ann")
    await stubs.catalog.DeleteWorker(pb.DeleteWorkerRequest(worker_id="ann"))
    await delete()
    await delete()
    error = await refusal(stubs.catalog.DeleteProject(pb.DeleteProjectRequest(project_id="default")), Invalid)
    assert "always there" in error.message


async def test_work_items_with_documents_are_moved(stubs: Stubs) -> None:
    documents = [pb.Document(name="a.md", content="# A"), pb.Document(name="b.md", content="b")]
    wanted = pb.WorkItem(work_item_id="item", title="Mend it", documents=documents)
    made = (await stubs.catalog.CreateWorkItem(pb.CreateWorkItemRequest(work_item=wanted))).work_item
    assert list(made.documents) == documents

    async def move(state: "pb.WorkItem.State.ValueType") -> pb.WorkItem:
        request = pb.MoveWorkItemRequest(work_item_id="item", state=state)
        return (await stubs.catalog.MoveWorkItem(request)).work_item

    assert (await move(pb.WorkItem.STATE_DONE)).state == pb.WorkItem.STATE_DONE
    assert (await move(pb.WorkItem.STATE_TODO)).state == pb.WorkItem.STATE_TODO
    for state in (pb.WorkItem.STATE_UNSPECIFIED, pb.WorkItem.STATE_REVIEW):
        assert [field for field, _ in (await refusal(move(state), Invalid)).violations] == ["state"]

    too_many = [pb.Document(name=str(number)) for number in range(21)]
    for documents, field in [
        (too_many, "work_item.documents"),
        ([pb.Document(name="a"), pb.Document(name="a")], "work_item.documents"),
        ([pb.Document(name="a", content="x" * (384 * 1024 + 1))], "work_item.documents"),
        ([pb.Document(content="x")], "work_item.documents[0].name"),
        ([pb.Document(name="a\nb")], "work_item.documents[0].name"),
        ([pb.Document(name="a", content="\0")], "work_item.documents[0].content"),
    ]:
        item = pb.WorkItem(work_item_id="item", documents=documents)
        request = pb.UpdateWorkItemRequest(work_item=item, update_mask=FieldMask(paths=["documents"]))
        error = await refusal(stubs.catalog.UpdateWorkItem(request), Invalid)
        assert [name for name, _ in error.violations] == [field]


async def test_a_work_item_in_progress_has_a_job(stubs: Stubs) -> None:
    await stubs.catalog.CreateWorkItem(
        pb.CreateWorkItemRequest(work_item=pb.WorkItem(work_item_id="other", title="The mast"))
    )
    wanted = pb.WorkItem(work_item_id="leak", title="It leaks", related_work_item_ids=["other"])
    await stubs.catalog.CreateWorkItem(pb.CreateWorkItemRequest(work_item=wanted))

    async def move(work_item_id: str, request_id: str = "") -> pb.MoveWorkItemResponse:
        state = pb.WorkItem.STATE_IN_PROGRESS
        request = pb.MoveWorkItemRequest(work_item_id=work_item_id, state=state, request_id=request_id)
        return await stubs.catalog.MoveWorkItem(request)

    refused = await refusal(move("leak"), FailedPrecondition)
    assert refused.reason == "WORK_ITEM_INCOMPLETE"
    assert "default worker" in refused.message

    worker = pb.Worker(worker_id="ada", agent=AgentSettings(command=CommandEngine(line="true")))
    await stubs.catalog.CreateWorker(pb.CreateWorkerRequest(worker=worker))
    project = pb.Project(project_id="default", default_worker_id="ada")
    mask = FieldMask(paths=["default_worker_id"])
    await stubs.catalog.UpdateProject(pb.UpdateProjectRequest(project=project, update_mask=mask))
    moved = await move("leak", "once")
    assert moved.work_item.state == pb.WorkItem.STATE_IN_PROGRESS
    job = (await stubs.jobs.GetJob(job_pb2.GetJobRequest(job_id=moved.job_id))).job
    assert (job.spec.kind, job.spec.worker_id, job.spec.work_item_id) == ("ticket", "ada", "leak")
    assert (await move("leak")).job_id == moved.job_id, "it has one already"

    cancelled = (await stubs.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=moved.job_id))).job
    assert cancelled.state == job_pb2.Job.STATE_CANCELLED
    item = (await stubs.catalog.GetWorkItem(pb.GetWorkItemRequest(work_item_id="leak"))).work_item
    assert item.state == pb.WorkItem.STATE_TODO
    assert (await move("leak", "once")).job_id == moved.job_id, (
        "the same request is the same job, whatever became of it"
    )
    again = await move("leak", "twice")
    assert again.job_id != moved.job_id

    deleted = stubs.catalog.DeleteWorker(pb.DeleteWorkerRequest(worker_id="ada"))
    assert (await refusal(deleted, FailedPrecondition)).reason == "WORKER_IN_USE"
