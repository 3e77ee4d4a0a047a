"""An agent's HOME goes with its job: over rounds and retries on its cell, into no result, and no further."""

import pytest
from boatyard.gateway.v1 import job_pb2

from tests.integration.gateway.test_checkpoints import BEFORE_PUSH, approve, ask_for
from tests.kit.repos import Repo
from tests.kit.services import Services

SUCCEEDED = job_pb2.Job.STATE_SUCCEEDED
COUNTS = "echo begun >> ~/times; wc -l < ~/times"
"""An agent that says how often an agent has begun in its HOME."""


@pytest.mark.slow
async def test_a_round_finds_the_home_of_the_one_before(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    policy = {**BEFORE_PUSH, "verify_command": "test ! -e ~/times", "artifacts": ["**"]}
    job = await services.submit(f"{COUNTS} >> seen", repository_id=repository, policy=policy)
    await ask_for(services, await services.asked(job.job_id), "once more")
    seen = await services.until(job.job_id, lambda now: now.checkpoints[-1].round == 2)
    await approve(services, seen.checkpoints[-1])
    ended = await services.ended(job.job_id)
    assert (ended.state, ended.reason) == (SUCCEEDED, "")
    assert remote.git("show", f"{ended.output.branch}:seen").split() == ["1", "2"]
    assert [change.path for change in ended.output.files_changed] == ["seen"], "HOME is in no commit"
    assert not [each for each in ended.output.artifacts if "times" in each.name]
    assert not list((services.home.root / "workspace" / "trees").glob("*/home/times")), "it went with the workspace"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retention", "times", "told"), [("KEEP_FAILED", "2", ""), ("REMOVE", "1", "begins with an empty HOME")]
)
async def test_an_attempt_finds_the_home_of_the_one_before_if_that_is_kept(
    services: Services, retention: str, times: str, told: str
) -> None:
    policy = {"retry_on": ["AGENT_FAILED"], "max_attempts": 2, "retention": f"RETENTION_{retention}"}
    job = await services.run(f"{COUNTS}; exit 3", policy=policy)
    assert (job.reason, len(job.execution_ids)) == ("AGENT_FAILED", 2)
    before, made = [stage.message for stage in job.timeline if stage.name == "workspace"]
    assert (before, bool(made)) == ("", bool(told))
    assert told in made
    first, second = [(await services.output(each)).decode().split() for each in job.execution_ids]
    assert sorted([first, second]) == sorted([["1"], [times]])
