"""Agents by name: found on the machine's tool paths, told what to install, read, and judged by what they say."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from grpc import aio

from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.integration.execution.service import Client, Seen, State, running
from tests.integration.execution.test_door import provider
from tests.kit.contract import ROOT
from tests.kit.model_provider import messages, providing
from tests.kit.uids import give_to_agents

FIX = ROOT / "tests" / "data" / "agents" / "claude-fix.jsonl"
CLAUDE = """#!/bin/sh
case $1 in --version) printf 'Usage: claude [OPTIONS]\\n\\n9.9.9 (Claude Code)\\n'; exit;; esac
cat >prompt; echo "$@" >arguments
{ echo "$DISABLE_TELEMETRY$HOME"; ls "$HOME/.mine" ; } >seen 2>&1
echo "starting up"
cat lines
exit "$(cat status)"
"""
MINE = """
title = "Mine"
licence = "MIT"
install = "make mine"
program = "mine"
line = 'cat >/dev/null; cat "$HOME/.mine/settings"; exec "$BOATYARD_AGENT_PROGRAM" ${BOATYARD_MODEL:+"$BOATYARD_MODEL"}'
done = '(?m)^finished$'
failed = 'cannot reach'
leave_out = [".mine*"]

[environment]
MINE = "of the preset"

[home]
".mine/settings" = "on\\n"

[exit_codes]
53 = "BUDGET_EXCEEDED"
"""


@pytest_asyncio.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    directory = tmp_path_factory.mktemp("presets")
    for name, text in {
        "tools/bin/claude": CLAUDE,
        "tools/mine": '#!/bin/sh\necho "$MINE $1"; cat says; exit $(cat status)\n',
    }.items():
        program = directory / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    (directory / "presets").mkdir()
    (directory / "presets" / "mine.toml").write_text(MINE)
    (directory / "presets" / "gone.toml").write_text(MINE.replace('"mine"', '"not-here"'))
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)
    async with running(directory, AGENT_PATHS=str(directory / "tools"), PRESETS=str(directory / "presets")) as client:
        yield client


async def run(client: Client, preset: str, files: dict[str, str], **settings: object) -> Seen:
    for name, text in files.items():
        (client.service.workspace / name).write_text(text)
    spec = client.service.spec("", prompt="Fix it.", **settings)
    spec.agent.command.preset = preset
    name = new_id("run")
    await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
    return await client.watch(name)


@pytest.mark.parametrize("tier", [sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE])
async def test_an_agent_by_name_is_started_read_and_counted(client: Client, tier: int) -> None:
    files = {"lines": FIX.read_text(), "status": "0"}
    seen = await run(client, "claude", files, sandbox_tier=tier, model="m-1", system_prompt="Be short.")
    seen.check_whole()
    assert (seen.end.state, seen.end.reason) == (State.STATE_SUCCEEDED, ""), seen.end
    raw = b"".join(event.output.data for event in seen.events if event.output.stream == 3)
    assert raw == FIX.read_bytes()
    assert [event.output.data for event in seen.events if event.output.stream == 1] == [b"starting up\n"]
    kinds = [event.WhichOneof("kind") for event in seen.events]
    assert (kinds.count("tool_call"), kinds.count("tool_result"), kinds.count("usage")) == (2, 2, 0)
    use = seen.end.model_use
    assert (use.tokens, use.claimed_tokens, use.last_words) == (0, 3360, "All is done.")
    assert use.claimed_cost_usd > 0
    workspace = client.service.workspace
    assert (workspace / "prompt").read_text() == "Fix it."
    assert "--model m-1 --append-system-prompt Be short." in (workspace / "arguments").read_text()
    assert (workspace / "seen").read_text().startswith("1/")


async def test_a_claim_that_its_door_has_not_seen_is_noted(client: Client) -> None:
    async with providing(messages()) as at:
        seen = await run(client, "claude", {"lines": FIX.read_text(), "status": "0"}, **provider(at))
    told = [event.note.text for event in seen.events if event.note.step == "model"]
    assert any("says that it used 3,360 tokens and " in text for text in told), told


async def test_exit_code_0_is_no_success_without_a_result(client: Client) -> None:
    first = FIX.read_text().splitlines()[0]
    seen = await run(client, "claude", {"lines": first, "status": "0"})
    assert (seen.end.state, seen.end.reason, seen.end.exit_code) == (State.STATE_FAILED, "AGENT_FAILED", 0)
    assert "said no result" in seen.end.message


async def test_an_operators_agent_has_its_files_and_its_words_count(client: Client) -> None:
    cases = {"finished\n": None, "cannot reach it\nfinished\n": "it says: cannot reach", "hm\n": "does not say that"}
    for says, complaint in cases.items():
        seen = await run(client, "mine", {"says": says, "status": "0"}, model="m-2")
        assert seen.output == b"on\nof the preset m-2\n" + says.encode()
        assert complaint is None or complaint in seen.end.message, seen.end
        assert (seen.end.state == State.STATE_SUCCEEDED) == (complaint is None)
        assert list(seen.end.leave_out) == [".mine*"]
    seen = await run(client, "mine", {"says": "finished\n", "status": "53"}, environment={"MINE": "of the job"})
    assert (seen.end.state, seen.end.reason, seen.end.exit_code) == (State.STATE_FAILED, "BUDGET_EXCEEDED", 53)
    assert b"of the job" in seen.output


@pytest.mark.parametrize(
    ("preset", "words"), [("gone", "To install it: make mine"), ("nobody", "has no agent 'nobody'")]
)
async def test_what_is_not_installed_is_refused_at_admission(client: Client, preset: str, words: str) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await run(client, preset, {})
    refusal = service_error(error.value)
    assert (refusal.reason, words in str(refusal)) == ("AGENT_NOT_INSTALLED", True), refusal


async def test_a_node_says_which_agents_it_has_and_in_which_versions(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            node = await client.stub.DescribeNode(pb.DescribeNodeRequest())
            agents = {agent.name: agent for agent in node.agents}
            if agents["claude"].version:
                break
            await asyncio.sleep(0.1)
    assert list(agents) == sorted(agents)
    assert (agents["claude"].version, agents["claude"].complaint) == ("9.9.9 (Claude Code)", "")
    assert agents["claude"].program.endswith("tools/bin/claude")
    assert (agents["gone"].program, agents["gone"].licence) == ("", "MIT")
    assert "not-here" in agents["gone"].complaint


@pytest.mark.slow
async def test_a_bad_preset_is_named_at_the_start(directory: Path) -> None:
    (directory / "bad").mkdir()
    (directory / "bad" / "mine.toml").write_text(MINE.replace("done =", "don ="))
    process = await asyncio.create_subprocess_exec(
        *("python", "-m", "services.execution"),
        env={
            "PATH": str(ROOT / ".venv" / "bin"),
            "BOATYARD_HOME": str(directory / "home"),
            "BOATYARD_EXECUTION_PRESETS": str(directory / "bad"),
        },
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    _, said = await process.communicate()
    assert process.returncode
    assert b"BOATYARD_EXECUTION_PRESETS" in said
    assert b"mine.toml: don is no key of a preset" in said


async def test_an_agent_goes_on_in_the_session_that_the_one_before_has_left_in_its_home(
    client: Client, tmp_path: Path
) -> None:
    session = json.loads(FIX.read_text().splitlines()[0])["session_id"]
    home, empty = tmp_path / "home", tmp_path / "empty"
    for directory in (home / ".claude" / "projects" / "ws", empty):
        directory.mkdir(parents=True)
    (home / ".claude" / "projects" / "ws" / f"{session}.jsonl").touch()
    for directory in (home, empty):
        give_to_agents(directory)
    files, job = {"lines": FIX.read_text(), "status": "0"}, new_id("job")

    async def resumed(**fields: object) -> bool:
        seen = await run(client, "claude", files, **{"job_id": job, "home_path": str(home), **fields})
        assert seen.end.state == State.STATE_SUCCEEDED, seen.end
        told = [event.note.text for event in seen.events if event.note.step == "session"]
        assert all(session in text for text in told)
        does = f"--resume {session}" in (client.service.workspace / "arguments").read_text()
        assert does == bool(told)
        return does

    assert not await resumed(resumes=True), "it is the job's first"
    assert await resumed(resumes=True)
    assert not await resumed(), "what it finds is not as it was left"
    assert not await resumed(resumes=True, home_path=str(empty))
    assert not await resumed(resumes=True, home_path="")
    assert not await resumed(resumes=True, job_id=new_id("job"))


async def test_an_agent_that_names_no_session_is_told_that_there_is_one(client: Client, tmp_path: Path) -> None:
    give_to_agents(tmp_path)
    (tmp_path / "history").touch()
    line = 'echo "session: $BOATYARD_SESSION_ID"'
    job, said = new_id("job"), []
    for _ in range(2):
        spec = client.service.spec(line, job_id=job, home_path=str(tmp_path), resumes=True)
        name = new_id("run")
        await client.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
        said.append((await client.watch(name)).output)
    assert said == [b"session: \n", b"session: last\n"]
