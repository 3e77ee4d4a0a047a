"""Jobs that ask people, on real node services: nothing is held while they wait, and nothing is lost."""

import signal
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.workspace.v1 import workspace_pb2, workspace_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from services.common.rpc.channel import open_channel
from services.common.rpc.status import service_error
from tests.kit.repos import Repo
from tests.kit.services import Services, running_services

PENDING, APPROVED, REJECTED, EXPIRED, CHANGES, WITHDRAWN = (
    checkpoint_pb2.Checkpoint.State.Value(f"STATE_{name}")
    for name in ("PENDING", "APPROVED", "REJECTED", "EXPIRED", "CHANGES_REQUESTED", "WITHDRAWN")
)
SUCCEEDED, FAILED, CANCELLED = (
    job_pb2.Job.State.Value(f"STATE_{name}") for name in ("SUCCEEDED", "FAILED", "CANCELLED")
)
BEFORE_PUSH = {"checkpoints": {"before": ["push"]}}


async def approve(services: Services, asked: checkpoint_pb2.Checkpoint, comment: str = "") -> None:
    request = checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id, comment=comment)
    answer = await services.checkpoints.ApproveCheckpoint(request)
    assert (answer.checkpoint.state, answer.already_decided) == (APPROVED, False)


async def ask_for(services: Services, asked: checkpoint_pb2.Checkpoint, comment: str) -> None:
    request = checkpoint_pb2.RequestChangesRequest(checkpoint_id=asked.checkpoint_id, comment=comment)
    answer = await services.checkpoints.RequestChanges(request)
    assert (answer.checkpoint.state, answer.already_decided) == (CHANGES, False)


async def test_a_result_is_pushed_when_somebody_approves(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    policy = {**BEFORE_PUSH, "verify_command": "test -e new"}
    job = await services.submit("touch new; echo all done", repository_id=repository, policy=policy)
    asked = await services.asked(job.job_id)
    assert (asked.name, asked.state, asked.job_id) == ("push", PENDING, job.job_id)
    assert (asked.round, asked.takes_changes) == (1, True)
    assert asked.expire_time.seconds - asked.create_time.seconds == 24 * 3600
    whole = (
        await services.checkpoints.GetCheckpoint(checkpoint_pb2.GetCheckpointRequest(checkpoint_id=asked.checkpoint_id))
    ).checkpoint
    assert not whole.HasField("decider"), "nobody has answered yet"
    assert whole.output.verification.passed
    assert whole.output.summary == "all done"
    assert [change.path for change in whole.output.files_changed] == ["new"]
    assert remote.git("branch", "--list", "boatyard/*") == ""
    await approve(services, asked, "well done")
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.output.pushed) == (SUCCEEDED, True)
    assert [(stage.name, stage.message) for stage in ended.timeline if stage.name.startswith("approval")] == [
        ("approval-push", "approved by admin: well done")
    ]
    (decided,) = ended.checkpoints
    assert (decided.state, decided.comment, decided.decider.name) == (APPROVED, "well done", "admin")
    assert decided.decider.peer.startswith("ipv4:127.0.0.1:")
    assert "grpc" in decided.decider.via


async def test_what_is_rejected_is_kept_and_not_pushed(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    job = await services.submit("touch new", repository_id=repository, policy=BEFORE_PUSH)
    asked = await services.asked(job.job_id)
    rejection = checkpoint_pb2.RejectCheckpointRequest(checkpoint_id=asked.checkpoint_id, reason="not like this")
    assert not (await services.checkpoints.RejectCheckpoint(rejection)).already_decided
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.reason, ended.message) == (FAILED, "REJECTED", "not like this")
    assert ended.output.snapshot_id
    assert remote.git("branch", "--list", "boatyard/*") == ""
    late = await services.checkpoints.ApproveCheckpoint(
        checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    )
    assert (late.already_decided, late.checkpoint.state, late.checkpoint.comment) == (True, REJECTED, "not like this")


async def test_nobody_answers(services: Services) -> None:
    policy = {"checkpoints": {"before": ["start"]}, "checkpoint_timeout": Duration(seconds=1)}
    job = await services.run("touch never", policy=policy)
    assert (job.state, job.reason) == (FAILED, "EXPIRED")
    assert "start" not in {stage.name for stage in job.timeline}, "the agent has not begun"
    (asked,) = job.checkpoints
    assert (asked.state, asked.decide_time, asked.HasField("decider")) == (EXPIRED, asked.expire_time, False)
    late = await services.checkpoints.ApproveCheckpoint(
        checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    )
    assert (late.already_decided, late.checkpoint.state) == (True, EXPIRED)


@pytest.mark.slow
async def test_a_job_that_waits_is_cancelled_and_cleans_up(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    job = await services.submit("touch new", repository_id=repository, policy=BEFORE_PUSH | {"retention": 3})
    asked = await services.asked(job.job_id)
    await services.jobs.CancelJob(job_pb2.CancelJobRequest(job_id=job.job_id))
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.workspace_id) == (CANCELLED, "")
    assert "cleanup" in {stage.name for stage in ended.timeline}
    (asked,) = ended.checkpoints
    assert asked.state == WITHDRAWN
    late = await services.checkpoints.ApproveCheckpoint(
        checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    )
    assert (late.already_decided, late.checkpoint.state) == (True, WITHDRAWN)


ANSWERING = 'n=$BOATYARD_ROUND; cat > "prompt-$n"; echo "round $n"; touch "made-$n"'


@pytest.mark.slow
async def test_changes_that_are_asked_for_are_made_in_the_same_workspace(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    policy = {**BEFORE_PUSH, "max_extra_rounds": 1, "verify_command": "test -e made-1"}
    job = await services.submit(ANSWERING, repository_id=repository, policy=policy, prompt="Build it.")
    await ask_for(services, await services.asked(job.job_id), "Paint it red.")
    await services.until(job.job_id, lambda now: len(now.checkpoints) == 2)
    again = await services.asked(job.job_id)
    assert (again.name, again.round, again.takes_changes) == ("push-2", 2, False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.checkpoints.RequestChanges(
            checkpoint_pb2.RequestChangesRequest(checkpoint_id=again.checkpoint_id, comment="More.")
        )
    assert service_error(caught.value).reason == "CHANGES_NOT_POSSIBLE"
    await approve(services, again)
    ended = await services.ended(job.job_id)
    assert (ended.state, len(ended.execution_ids)) == (SUCCEEDED, 2), ended
    assert again.execution_id == ended.execution_ids[1]
    names = [stage.name for stage in ended.timeline]
    first = ["start", "agent", "take", "diff", "verify", "approval-push"]
    assert names[4:] == [*first, *(f"{name}-2" for name in first), "push", "cleanup"]
    files = remote.files(ended.output.branch)
    assert {"made-1", "made-2", "prompt-1", "prompt-2"} <= files.keys()
    assert files["prompt-1"].strip() == "Build it."
    assert "Build it." in files["prompt-2"]
    assert "Paint it red." in files["prompt-2"]
    assert await services.output(ended.execution_ids[1]) == b"round 2\n"
    assert ended.output.verification.execution_id.startswith(ended.execution_ids[1])


ASKING = (
    'if [ "$BOATYARD_ROUND" = 1 ]; then echo "Red or blue?" > "$BOATYARD_ASK_FILE";'
    ' else cat > answer.txt; fi; test ! -e "$BOATYARD_ASK_FILE" || [ "$BOATYARD_ROUND" = 1 ]'
)


@pytest.mark.parametrize(
    "with_repository", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["repository", "none"]
)
async def test_an_agent_asks_and_goes_on_with_the_answer(
    services: Services, remote: Repo, with_repository: bool
) -> None:
    spec = {"repository_id": await services.repository(remote)} if with_repository else {}
    job = await services.submit(ASKING + "; echo fine", policy={"agent_may_ask": True}, **spec)
    asked = await services.asked(job.job_id)
    assert (asked.name, asked.question) == ("agent", "Red or blue?")
    assert asked.origin == checkpoint_pb2.Checkpoint.ORIGIN_AGENT
    await approve(services, asked, "Blue.")
    ended = await services.ended(job.job_id)
    assert (ended.state, len(ended.execution_ids)) == (SUCCEEDED, 2), ended
    if with_repository:
        files = remote.files(ended.output.branch)
        assert "Red or blue?" in files["answer.txt"]
        assert "Yes. Blue." in files["answer.txt"]
        assert not [path for path in files if path.startswith(".boatyard")], "what it asked is no part of the result"


@pytest.mark.slow
async def test_an_agent_that_asks_for_ever_is_stopped(services: Services) -> None:
    policy = {"agent_may_ask": True, "max_extra_rounds": 1}
    job = await services.submit('echo "And now?" > "$BOATYARD_ASK_FILE"', policy=policy)
    await approve(services, await services.asked(job.job_id))
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.reason) == (FAILED, "ROUNDS_EXCEEDED")


@pytest.mark.slow
async def test_a_question_that_cannot_be_read_is_not_passed_over(services: Services) -> None:
    command = 'echo "And now?" > "$BOATYARD_ASK_FILE"; chmod 0 "$BOATYARD_ASK_FILE"'
    job = await services.run(command, policy={"agent_may_ask": True})
    assert (job.state, job.reason) == (FAILED, "ASK_UNREADABLE")


async def test_lists_have_filters_and_pages(services: Services) -> None:
    policy = {"checkpoints": {"before": ["start"]}}
    jobs = [await services.submit("true", policy=policy) for _ in range(3)]
    asked = [await services.asked(job.job_id) for job in jobs]
    await approve(services, asked[0])
    request = checkpoint_pb2.ListCheckpointsRequest(states=[PENDING], page_size=1)
    ids = []
    while True:
        page = await services.checkpoints.ListCheckpoints(request)
        ids += [one.job_id for one in page.checkpoints]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    newest_first = sorted(asked[1:], key=lambda one: one.create_time.ToNanoseconds(), reverse=True)
    assert [job_id for job_id in ids if job_id in {job.job_id for job in jobs}] == [one.job_id for one in newest_first]
    of_one = await services.checkpoints.ListCheckpoints(
        checkpoint_pb2.ListCheckpointsRequest(job_id=jobs[0].job_id, states=[APPROVED, EXPIRED])
    )
    assert [one.checkpoint_id for one in of_one.checkpoints] == [asked[0].checkpoint_id]
    for one in asked[1:]:
        await approve(services, one)


@pytest.mark.slow
async def test_what_waits_holds_no_slot_and_outlives_everything(tmp_path: Path, remote: Repo) -> None:
    environment = {"BOATYARD_GATEWAY_MAX_JOBS": "1", "BOATYARD_GIT_BASE_GRACE_SECONDS": "0"}
    async with running_services(tmp_path, **environment) as services:
        repository = await services.repository(remote)
        policy = {"checkpoints": {"before": ["start", "push"]}}
        job = await services.submit("ls; touch new", repository_id=repository, policy=policy)
        first = await services.asked(job.job_id)
        assert (await services.run("echo beside")).state == SUCCEEDED, "the only slot is free"
        for name in ("workspace", "git", "execution", "gateway"):
            services.end(name)
        for name in ("workspace", "git", "execution", "gateway"):
            services.start(name)
            await services.serving(name)
        await _sweep(services)
        await approve(services, first)
        await services.until(job.job_id, lambda now: len(now.checkpoints) == 2)
        second = await services.asked(job.job_id)
        workspace_id = (await services.job(job.job_id)).workspace_id
        await _sweep(services)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services.runtime.DeleteWorkspace(runtime_pb2.DeleteWorkspaceRequest(workspace_id=workspace_id))
        assert service_error(caught.value).reason == "WORKSPACE_IN_USE"
        await approve(services, second)
        ended = await services.ended(job.job_id)
    assert (ended.state, ended.output.pushed) == (SUCCEEDED, True), ended
    assert remote.files(ended.output.branch).keys() >= {"new"}


@pytest.mark.slow
async def test_rounds_go_on_where_a_killed_gateway_left_them(tmp_path: Path, remote: Repo) -> None:
    async with running_services(tmp_path) as services:
        repository = await services.repository(remote)
        command = 'echo "begun $BOATYARD_ROUND" >> begun.txt; sleep 1; cat > told.txt; echo "round $BOATYARD_ROUND"'
        job = await services.submit(command, repository_id=repository, policy=BEFORE_PUSH)
        for number in (1, 2, 3):
            await services.until(job.job_id, lambda now, number=number: len(now.checkpoints) == number)
            asked = await services.asked(job.job_id)
            assert asked.round == number
            if number < 3:
                await ask_for(services, asked, f"Again {number}.")
                agent = f"agent-{number + 1}"
                await services.until(
                    job.job_id, lambda now, agent=agent: agent in {stage.name for stage in now.timeline}
                )
            services.end("gateway", signal.SIGKILL)
            services.start("gateway")
            await services.serving("gateway")
        await approve(services, asked)
        ended = await services.ended(job.job_id)
        assert (ended.state, len(ended.execution_ids)) == (SUCCEEDED, 3), ended
        assert await services.output(ended.execution_ids[2]) == b"round 3\n"
    files = remote.files(ended.output.branch)
    assert files["begun.txt"].split() == ["begun", "1", "begun", "2", "begun", "3"], "each agent was started once"
    assert "Again 2." in files["told.txt"]
    assert ended.output.commit_id == remote.head(ended.output.branch)
    assert ended.output.base_commit_id == remote.head("main")


async def _sweep(services: Services) -> None:
    """Have the workspace service remove all that it may."""
    async with open_channel(services.address("workspace"), services.home.cell_token()) as channel:
        stub = workspace_pb2_grpc.WorkspaceServiceStub(channel)
        await stub.SweepWorkspaces(workspace_pb2.SweepWorkspacesRequest(max_age=Duration(nanos=1)))
