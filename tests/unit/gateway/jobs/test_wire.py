"""What a request may say about a job, and what fits into a response."""

import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from boatyard.gateway.v1 import job_pb2 as pb
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.agent.settings import AgentSettings, CommandEngine
from services.common.db.paging import Page
from services.common.rpc.rules import Rules
from services.gateway.jobs import submission_wire, wire
from services.gateway.jobs.kinds import load_kinds
from services.gateway.jobs.store import job_key
from services.gateway.values.jobs import ExecutionView, JobView, StageView
from services.gateway.wire.lists import fitted
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.output import Output
from services.lifecycle.model.states import ExecutionState, JobState, Purpose, StageState

RULES = Rules(submission_wire.checks(load_kinds()))
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def view(prompt: str = "Do it.", job_id: str = "job-1", agent: AgentSettings | None = None) -> JobView:
    agent = agent or AgentSettings(engine=CommandEngine(line="true"))
    spec = JobSpec(job_id, "default", "task", prompt, prompt, NOW, agent=agent)
    execution = ExecutionView(
        execution_id="exec-1",
        job_id=job_id,
        job_state=JobState.PENDING,
        job_reason="",
        project_id="default",
        template_id="",
        worker_id="",
        work_item_id="",
        repository_id="",
        branch=b"",
        purpose=Purpose.AGENT,
        attempt=1,
        workspace_id="",
        cell_id="",
        state=ExecutionState.PENDING,
        reason="",
        message="",
        output=Output(),
        create_time=NOW,
        start_time=None,
        end_time=None,
    )
    return JobView(
        spec=spec,
        state=JobState.PENDING,
        reason="",
        message="",
        cell_id="",
        cancel_requested=False,
        revision=1,
        create_time=NOW,
        start_time=None,
        end_time=None,
        executions=(execution,),
    )


def accepted(branch: str) -> bool:
    return not RULES.violations(pb.CreateJobRequest(spec=pb.JobSpec(prompt="x", branch=branch)))


@given(st.lists(st.sampled_from(["a", "/", ".", "-", "@", "{", ".lock", "\u00fc", " ", "~", "*"]), max_size=6))
@settings(max_examples=60, deadline=None)
@example(["HEAD"])
@example(["a.lock/b"])
@example(["boatyard/job-1"])
def test_a_branch_is_accepted_when_git_accepts_it(parts: list[str]) -> None:
    branch = "".join(parts)
    if not branch:
        return
    git = subprocess.run(["git", "check-ref-format", "refs/heads/" + branch], check=False)
    usable = git.returncode == 0 and not branch.startswith("-") and branch not in {"@", "HEAD"}
    assert accepted(branch) is usable


def test_a_document_fits_into_a_hook() -> None:
    short = json.loads(wire.job_document(view("Mend é.")))
    assert (short["jobId"], short["spec"]["prompt"]) == ("job-1", "Mend é.")
    long = wire.job_document(view("\x01" * (1 << 20)))
    assert len(long) <= wire.MAX_DOCUMENT_BYTES
    assert json.loads(long)["spec"]["prompt"].startswith("\x01")


def test_what_others_chose_breaks_no_line_and_no_document() -> None:
    hostile = "x\x1b[2J\x7f\x9b\u202e\u2028\n✓ verify passed"
    stage = StageView(name="agent", state=StageState.FAILED, message=hostile, start_time=NOW, end_time=NOW)
    shown = replace(view(hostile), message=hostile, timeline=(stage,))
    job = wire.job_to_proto(shown)

    assert job.timeline[0].message == r"x\x1b[2J\x7f\x9b\u202e\u2028\n✓ verify passed"
    assert job.message == "x\\x1b[2J\\x7f\\x9b\\u202e\\u2028\n✓ verify passed"
    document = wire.job_document(shown).decode()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", document)
    assert json.loads(document)["spec"]["prompt"] == hostile


def test_a_list_shows_the_beginning_of_a_long_prompt() -> None:
    brief = wire.job_to_proto(view("x" * 5000), brief=True)
    assert brief.spec.prompt.startswith("xxx")
    assert len(brief.spec.prompt) < 1000
    assert wire.job_to_proto(view("x" * 5000)).spec.prompt == "x" * 5000


def test_a_page_ends_early_where_its_jobs_are_large() -> None:
    views = [view("x" * (1 << 19), f"job-{number}") for number in range(9)]
    page = Page(size=8)
    messages, token = fitted(views, page, wire.job_to_proto, job_key)
    assert [message.job_id for message in messages] == [f"job-{number}" for number in range(4)]
    assert token
    whole, last = fitted([replace(views[0])], page, wire.job_to_proto, job_key)
    assert (len(whole), last) == (1, "")


@pytest.mark.parametrize("kind", ["reviews", "-"])
def test_an_unknown_kind_is_refused(kind: str) -> None:
    violations = RULES.violations(pb.CreateJobRequest(spec=pb.JobSpec(prompt="x", kind=kind)))
    assert [field for field, _ in violations] == ["spec.kind"]


def test_hooks_are_told_the_names_of_an_environment_and_not_its_values() -> None:
    """The server that is called may be anybody's."""
    document = wire.job_document(
        view(agent=AgentSettings(engine=CommandEngine(line="true"), environment={"API_KEY": "s3cret"}))
    )
    assert json.loads(document)["spec"]["agent"]["environment"] == {"API_KEY": ""}


def test_a_job_from_before_refs_were_text_is_shown() -> None:
    old = view()
    data = '{ "n": 12345678901234567890123, "a": "\u00fc"}\n'
    spec = replace(old.spec, revision=b"r\xff", branch=b"b\xff", data=data.encode())
    message = wire.job_to_proto(replace(old, spec=spec))
    assert (message.spec.revision, message.spec.branch) == ("r\ufffd", "b\ufffd")
    assert message.spec.data == data
    assert json.loads(wire.job_document(replace(old, spec=spec)))["spec"]["branch"] == "b\ufffd", "no base64"
