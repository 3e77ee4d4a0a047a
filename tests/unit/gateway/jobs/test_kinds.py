"""Kinds of jobs are data: a table in a file makes a new one, and its policy applies to its jobs."""

from datetime import timedelta
from pathlib import Path

import pytest

from services.common.db.engine import sqlite_url
from services.common.errors import Invalid, StartError
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.kinds import load_kinds
from services.gateway.jobs.submission import JobSubmission
from services.gateway.ledger.notifier import JobNotifier
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.policy import Checkpoints, Policy
from services.lifecycle.model.states import Publish
from tests.kit.ledger import books

OWN = """
[report]
description = "A report that stays here."
required_fields = ["data"]
required_data = ["month"]
policy.publish = "NONE"
policy.verify_command = "test -s report.md"
policy.verify_timeout = 5
policy.checkpoints.before = ["start"]

[task]
description = "A task of ours."
"""


async def admitted(tmp_path: Path, kinds: Path | None, **fields: object) -> JobSpec:
    async with books(sqlite_url(tmp_path / "gateway.db")) as book:
        admission = Admission(book.engine, JobNotifier(), "true", kinds=load_kinds(kinds))
        submission = JobSubmission(**{"project_id": "default", "prompt": "Do it.", "path": "spec.", **fields})  # type: ignore[arg-type]
        return (await admission.admit(submission, None)).spec


async def test_a_table_in_a_file_is_a_kind(tmp_path: Path) -> None:
    own = tmp_path / "kinds.toml"
    own.write_text(OWN)
    kinds = load_kinds(own)
    assert kinds["task"].description == "A task of ours."
    assert set(load_kinds()) | {"report"} == set(kinds)
    spec = await admitted(tmp_path, own, kind="report", data=b'{"month": 5}')
    assert (spec.kind, spec.policy.publish, spec.policy.verify_timeout) == (
        "report",
        Publish.NONE,
        timedelta(seconds=5),
    )
    assert spec.policy.checkpoints.before == ("start",)
    mine = Policy(verify_command="", publish=Publish.PUSH, checkpoints=Checkpoints())
    overridden = await admitted(tmp_path, own, kind="report", data=b'{"month": 5}', policy=mine)
    assert (overridden.policy.verify_command, overridden.policy.publish, overridden.policy.checkpoints.before) == (
        "",
        Publish.PUSH,
        (),
    )


@pytest.mark.parametrize(
    ("fields", "violations"),
    [
        ({}, ["spec.data"]),
        ({"data": b'{"year": 1}'}, ["spec.data"]),
        ({"kind": "code-generation"}, ["spec.repository_id"]),
        ({"kind": "ticket"}, ["spec.work_item_id"]),
        ({"kind": "review", "data": b'{"comment_id": 1}'}, ["spec.repository_id", "spec.data"]),
    ],
)
async def test_what_a_kind_needs_is_asked_for(tmp_path: Path, fields: dict[str, object], violations: list[str]) -> None:
    own = tmp_path / "kinds.toml"
    own.write_text(OWN)
    with pytest.raises(Invalid) as refused:
        await admitted(tmp_path, own, **{"kind": "report", **fields})
    assert [field for field, _ in refused.value.violations] == violations


async def test_the_shipped_kinds_ask_where_they_say(tmp_path: Path) -> None:
    kinds = load_kinds()
    assert kinds["code-generation"].policy.checkpoints == Checkpoints(("push",))
    assert kinds["data-processing"].policy.checkpoints == Checkpoints(("start", "push"))
    assert (await admitted(tmp_path, None)).policy.checkpoints.before == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a", "cannot read"),
        ("a = 1", "must be a table"),
        ("['A b']\ndescription = ''", "must have a name"),
        ("[a]", "description"),
        ("[a]\ndescription = ''\nprompt = 'x'", "prompt: known are"),
        ("[a]\ndescription = ''\npolicy.verify = 'x'", "verify: known are"),
        ("[a]\ndescription = ''\npolicy.publish = 'SOMEWHERE'", "policy.publish"),
        ("[a]\ndescription = ''\nrequired_fields = ['prompts']", "prompts: known are"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    own = tmp_path / "kinds.toml"
    own.write_text(text)
    with pytest.raises(StartError, match=complaint) as refused:
        load_kinds(own)
    assert str(own) in str(refused.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        load_kinds(tmp_path / "nothing.toml")
