"""Floors of projects and templates, on every kind of database: they bind whoever submits, retries or approves."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition, Invalid, PermissionDenied
from services.gateway.catalog.store import PROJECTS, TEMPLATES, WORK_ITEMS, CatalogStore
from services.gateway.coordinators.endings import end_question
from services.gateway.jobs.retries import Retries
from services.gateway.values.catalog import Template, WorkItem
from services.gateway.values.checkpoints import CheckpointDecision, Decider
from services.gateway.values.principal import OURSELVES, Principal, Role, set_current_principal
from services.lifecycle.model.checkpoint import CheckpointState, Origin
from services.lifecycle.model.floor import BindingFloor, Floor, Limits
from services.lifecycle.model.outcome import Outcome
from services.lifecycle.model.output import Output
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import JobState, Publish
from services.sandbox.spec import Network, Tier
from tests.kit.ledger import Books, claimed, question

NOW = datetime(2026, 11, 29, tzinfo=UTC)
OF_PROJECT = Floor(
    verify_command="make lint",
    checkpoints=Checkpoints(("push",)),
    limits=Limits(timeout=timedelta(minutes=10), memory_bytes=1 << 30),
    sandbox_tiers=(Tier.BUBBLEWRAP,),
    protected_paths=(".github/workflows",),
)
OF_TEMPLATE = Floor(
    verify_command="make test",
    never_pushed=True,
    networks=(Network.ALLOW_LIST,),
    allowed_hosts=("*.example.com",),
    max_attempts=2,
    max_extra_rounds=0,
)
EVERYDAY = {"project_id": "default", "create_time": NOW}


@pytest.fixture
def as_caller() -> Iterator[Callable[..., None]]:
    yield lambda name, role=Role.OPERATOR: set_current_principal(Principal(name, role))
    set_current_principal(OURSELVES)


async def set_floor(book: Books, floor: Floor) -> None:
    await CatalogStore(book.engine).update(PROJECTS, "default", lambda project: replace(project, floor=floor))


@pytest.fixture
async def floored(book: Books) -> Books:
    """A project and a template with floors."""
    await set_floor(book, OF_PROJECT)
    template = Template(
        template_id="strict",
        agent=AgentSettings(timeout=timedelta(hours=9), processes=7),
        policy=Policy(verify_command="make docs"),
        floor=OF_TEMPLATE,
        **EVERYDAY,  # type: ignore[arg-type]
    )
    await CatalogStore(book.engine).create(TEMPLATES, template)
    return book


async def refused(book: Books, **fields: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        await book.admit(**fields)
    return dict(caught.value.violations)


async def test_what_a_job_does_not_set_is_brought_to_its_floors(floored: Books) -> None:
    spec = (await floored.admit(template_id="strict")).spec
    assert spec.agent.timeout == timedelta(minutes=10), "the template's 9 h are more than its project lets it have"
    assert (spec.agent.memory_bytes, spec.agent.processes) == (1 << 30, 7)
    assert (spec.policy.checkpoints.before, spec.policy.publish) == (("push",), Publish.NONE)
    assert (spec.policy.max_attempts, spec.policy.max_extra_rounds) == (2, 0)
    commands = [spec.policy.verify_command.index(f"make {name}") for name in ("lint", "test", "docs")]
    assert commands == sorted(commands), "the project's, the template's floor, and then its own"
    assert spec.floors == (BindingFloor("project/default", OF_PROJECT), BindingFloor("template/strict", OF_TEMPLATE))
    assert (await floored.admit()).spec.floors == spec.floors[:1]


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
async def test_a_job_takes_nothing_away(floored: Books, as_caller: Callable[..., None], role: Role) -> None:
    as_caller("ann", role)
    agent = AgentSettings(
        sandbox_tier=Tier.CONTAINER, image="i", network=Network.OPEN, timeout=timedelta(hours=1), memory_bytes=2 << 30
    )
    policy = Policy(checkpoints=Checkpoints(("start",)), publish=Publish.PUSH, verify_command="")
    rules = await refused(floored, template_id="strict", agent=agent, policy=policy)
    assert rules == {
        "agent.sandbox_tier": "must be BUBBLEWRAP: the floor of project/default wants it",
        "agent.network": "must be NONE or ALLOW_LIST: the floor of template/strict wants it",
        "agent.timeout": "must be at most 600 s: the floor of project/default wants it",
        "agent.memory_bytes": "must be at most 1073741824: the floor of project/default wants it",
        "policy.checkpoints.before": "must have push: the floor of project/default wants it",
        "policy.publish": "must be NONE: the floor of template/strict wants it",
    }


async def test_a_job_reaches_hosts_and_is_tried_as_its_floors_allow(floored: Books) -> None:
    agent = AgentSettings(network=Network.ALLOW_LIST, allowed_hosts=("api.example.com", "example.org"))
    rules = await refused(floored, template_id="strict", agent=agent, policy=Policy(max_attempts=3, max_extra_rounds=1))
    assert rules == {
        "agent.allowed_hosts": "must be of *.example.com, not example.org: the floor of template/strict wants it",
        "policy.max_attempts": "must be at most 2: the floor of template/strict wants it",
        "policy.max_extra_rounds": "must be at most 0: the floor of template/strict wants it",
    }
    agent = replace(agent, allowed_hosts=agent.allowed_hosts[:1])
    spec = (await floored.admit(template_id="strict", agent=agent, policy=Policy(max_attempts=1))).spec
    assert (spec.agent.allowed_hosts, spec.policy.max_attempts) == (("api.example.com",), 1)


async def test_a_job_adds(floored: Books, as_caller: Callable[..., None]) -> None:
    as_caller("ann")
    agent = AgentSettings(timeout=timedelta(minutes=1))
    policy = Policy(checkpoints=Checkpoints(("push", "start")), verify_command="make mine", publish=Publish.NONE)
    spec = (await floored.admit(agent=agent, policy=policy)).spec
    assert (spec.agent.timeout, spec.policy.checkpoints.before) == (timedelta(minutes=1), ("start", "push"))
    assert spec.policy.verify_command == "/bin/sh -c 'make lint' && /bin/sh -c 'make mine'"
    spec = (await floored.admit(policy=Policy(verify_command=""))).spec
    assert spec.policy.verify_command == "make lint", "an empty command takes away its own alone"


async def test_a_work_item_is_bound_as_its_job_is(floored: Books, as_caller: Callable[..., None]) -> None:
    item = WorkItem(work_item_id="item", title="t", agent=AgentSettings(memory_bytes=2 << 30), **EVERYDAY)  # type: ignore[arg-type]
    await CatalogStore(floored.engine).create(WORK_ITEMS, item)
    as_caller("ann")
    assert [*await refused(floored, work_item_id="item")] == ["agent.memory_bytes"]


async def test_an_administrator_waives_floors_and_nobody_else(floored: Books, as_caller: Callable[..., None]) -> None:
    as_caller("ann")
    with pytest.raises(PermissionDenied, match="only an administrator") as caught:
        await floored.admit(waive_floors=True)
    assert caught.value.reason == "ROLE_REQUIRED"
    as_caller("root", Role.ADMIN)
    spec = (await floored.admit(waive_floors=True, agent=AgentSettings(memory_bytes=2 << 30))).spec
    assert (spec.floors, spec.waive_floors, spec.agent.memory_bytes) == ((), True, 2 << 30)


async def test_a_retry_is_bound_to_the_floors_of_now_and_once(book: Books, as_caller: Callable[..., None]) -> None:
    cell, retries = await book.cell("one"), Retries(book.engine, book.notifier)
    as_caller("root", Role.ADMIN)
    waived = await book.admit(policy=Policy(verify_command="make mine"), waive_floors=True)
    await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
    await set_floor(book, OF_PROJECT)
    job_id = waived.spec.job_id
    spec = (await retries.retry(job_id, from_snapshot=False, key=None)).spec
    assert (spec.floors, spec.waive_floors) == ((), True), "an administrator may, again"
    as_caller("ann")
    for _ in range(2):
        await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
        spec = (await retries.retry(job_id, from_snapshot=False, key=None)).spec
        assert spec.policy.verify_command == "/bin/sh -c 'make lint' && /bin/sh -c 'make mine'"
        assert (spec.policy.checkpoints.before, spec.agent.memory_bytes) == (("push",), 1 << 30)
        assert spec.submitters == ("root", "ann")
    assert (await claimed(cell)).spec == spec, "and that is what is run"


async def test_a_retry_that_a_floor_no_longer_allows_is_refused(book: Books) -> None:
    cell, retries = await book.cell("one"), Retries(book.engine, book.notifier)
    job_id = (await book.admit(agent=AgentSettings(network=Network.OPEN))).spec.job_id
    await cell.finish(await claimed(cell), Outcome(JobState.CANCELLED))
    await set_floor(book, Floor(networks=(Network.NONE,)))
    with pytest.raises(FailedPrecondition, match="project/default") as caught:
        await retries.retry(job_id, from_snapshot=False, key=None)
    assert caught.value.reason == "BELOW_FLOOR"
    assert (await book.store.job(job_id)).state is JobState.CANCELLED


@pytest.mark.parametrize("origin", Origin)
async def test_whoever_submitted_a_job_does_not_approve_it(
    book: Books, as_caller: Callable[..., None], origin: Origin
) -> None:
    await set_floor(book, Floor(approved_by_others=True))
    cell = await book.cell("one")
    as_caller("ann")
    await book.admit()
    lease = await claimed(cell)
    await cell.park(lease, replace(question(lease), origin=origin))
    (asked,) = (await book.store.job(lease.job_id)).checkpoints

    def decision(name: str, state: CheckpointState = CheckpointState.APPROVED) -> CheckpointDecision:
        return CheckpointDecision(state=state, comment="", decider=Decider(name=name))

    if origin is not Origin.AGENT:
        with pytest.raises(PermissionDenied, match="project/default") as caught:
            await book.checkpoints.decide(asked.checkpoint_id, decision("ann"))
        assert caught.value.reason == "APPROVAL_BY_SUBMITTER"
    answer = decision("ann") if origin is Origin.AGENT else decision("bob")
    assert (await book.checkpoints.decide(asked.checkpoint_id, answer))[1], "an agent's question is no approval"


async def test_whoever_told_its_agent_what_to_do_does_not_approve_it(
    book: Books, as_caller: Callable[..., None]
) -> None:
    await set_floor(book, Floor(approved_by_others=True))
    cell = await book.cell("one")
    as_caller("ann")
    execution_id = (await book.admit()).executions[-1].execution_id
    lease = await claimed(cell)
    for name in ("bob", "bob", "cleo"):
        as_caller(name)
        await book.store.record_steering(execution_id)
    await cell.park(lease, question(lease))
    as_caller("dan")
    await book.store.record_steering(execution_id)
    job = await book.store.job(lease.job_id)
    assert (job.spec.submitters, job.spec.steered_by) == (("ann",), ("bob", "cleo")), "dan wrote when it was over"
    (asked,) = job.checkpoints
    approvals = {
        name: CheckpointDecision(state=CheckpointState.APPROVED, comment="", decider=Decider(name=name))
        for name in ("ann", "bob", "cleo", "dan")
    }
    for name in ("ann", "bob", "cleo"):
        with pytest.raises(PermissionDenied, match=f"'{name}' .*project/default") as caught:
            await book.checkpoints.decide(asked.checkpoint_id, approvals[name])
        assert caught.value.reason == "APPROVAL_BY_SUBMITTER"
    assert (await book.checkpoints.decide(asked.checkpoint_id, approvals["dan"]))[1]


async def test_of_a_client_that_pushes_by_itself_a_person_is_asked(book: Books) -> None:
    cell = await book.cell("one")
    await book.admit()
    assert end_question(await claimed(cell), Output()) is None
    await set_floor(book, Floor(protected_paths=("ci", "Makefile")))
    await book.admit()
    asked = end_question(await claimed(cell), Output())
    assert asked is not None
    assert asked.text == "Is the job done? Nobody has looked at whether it changes protected paths: ci, Makefile."


async def test_whoever_submitted_a_job_may_reject_it(book: Books, as_caller: Callable[..., None]) -> None:
    await set_floor(book, Floor(approved_by_others=True))
    cell = await book.cell("one")
    as_caller("ann")
    await book.admit()
    lease = await claimed(cell)
    await cell.park(lease, question(lease))
    (asked,) = (await book.store.job(lease.job_id)).checkpoints
    rejection = CheckpointDecision(state=CheckpointState.REJECTED, comment="no", decider=Decider(name="ann"))
    assert (await book.checkpoints.decide(asked.checkpoint_id, rejection))[1]
