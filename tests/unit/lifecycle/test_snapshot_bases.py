"""Attempts that an earlier version compared with the snapshot that they began from are compared with its base."""

from dataclasses import replace

import pytest

from services.lifecycle.failures import Parked
from services.lifecycle.model.checkpoint import CheckpointState, Decision
from services.lifecycle.model.node_work import Base, Run
from services.lifecycle.model.outcome import Nothing
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import ExecutionState
from services.lifecycle.model.value import load
from services.lifecycle.run import JobRun
from services.lifecycle.stages.checkpoints import approval
from services.lifecycle.stages.snapshot_bases import corrected, current, recorded_base
from tests.kit.ledger import Books
from tests.unit.lifecycle.test_rounds import answered, carried, done

RECORDED = load(Base, '{"commit_id": "c0ffee", "layers": ["L2E="], "read_only_paths": [], "pins_path": "L3A="}')
FOUND = Base("ba5e", (b"/b",), (), b"/q", "4ead")
ASKS = Policy(checkpoints=Checkpoints(("push",)))
APPROVED = Decision(CheckpointState.APPROVED, "", "")


async def found() -> Base:
    return FOUND


def began(job: JobRun, *names: str) -> None:
    """Have an earlier version recorded these, in its order."""
    run = Run(job.execution_id, ExecutionState.SUCCEEDED)
    for name in names:
        job.stages[name] = done(name, APPROVED if name.startswith("approval") else run)
    job.stages["base"] = done("base", RECORDED)


async def recorded(job: JobRun) -> None:
    """Record how all steps ended: a step does that as it begins."""

    async def nothing() -> Nothing:
        return Nothing()

    await job.step("workspace", Nothing, nothing)


async def test_it_is_compared_with_the_snapshots_base(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        began(job, "start")
        base = await corrected(job, RECORDED, found)
        assert base == replace(RECORDED, commit_id="ba5e"), "its tree and its HEAD stay where they are"
        assert job.execution.output.base_commit_id == "ba5e"
        assert recorded_base(job) == base
        assert current(job, "diff") == "diff", "nothing was compared before"
        await recorded(job)
    async with carried(book) as job:
        assert await corrected(job, RECORDED, pytest.fail) == base


async def test_what_is_public_stays_as_it_was_compared(book: Books) -> None:
    async with carried(book, prompt="Do it.") as job:
        began(job, "start", "diff", "push")
        assert await corrected(job, RECORDED, pytest.fail) == RECORDED
        assert recorded_base(job) == RECORDED


@pytest.mark.parametrize(("rounds", "outdated"), [(["start"], "diff"), (["start", "start-2"], "diff-2")])
async def test_the_last_round_is_compared_anew(book: Books, rounds: list[str], outdated: str) -> None:
    async with carried(book, prompt="Do it.") as job:
        began(job, *rounds, "diff", outdated, "protected")
        await corrected(job, RECORDED, found)
        assert current(job, outdated) == f"{outdated}-anew"
        began(job, "start-3", "diff-3")
        assert [current(job, name) for name in ("diff-3", "protected-3")] == ["diff-3", "protected-3"]


async def test_whoever_approved_what_was_shown_is_asked_again(book: Books) -> None:
    await book.admit(prompt="Do it.", policy=ASKS)
    async with carried(book) as job:
        with pytest.raises(Parked):
            await approval(job, "push")
    for _ in range(2):
        await answered(book, CheckpointState.APPROVED)
        async with carried(book) as job:
            began(job, "start", "diff")
            await corrected(job, RECORDED, found)
            if job.has_begun("approval-push-anew"):
                assert await approval(job, "push") == ""
                break
            with pytest.raises(Parked):
                await approval(job, "push")
    else:
        pytest.fail("nobody was asked again")
    checkpoints = (await book.store.job(job.lease.job_id)).checkpoints
    assert [each.name for each in checkpoints] == ["push", "push-anew"]


async def test_a_question_that_floors_no_longer_ask_has_its_answer(book: Books) -> None:
    """That version asked about every snapshot, where paths are protected."""
    await book.admit(prompt="Do it.")
    async with carried(book) as job:
        with pytest.raises(Parked):
            await approval(job, "push", "It began from a snapshot.")
    await answered(book, CheckpointState.CHANGES_REQUESTED)
    async with carried(book) as job:
        began(job, "start", "diff", "protected")
        await corrected(job, RECORDED, found)
        assert "so be it" in await approval(job, "push")
