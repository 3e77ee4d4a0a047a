"""How executions end, and what their programs receive and see."""

import os
from pathlib import Path

import grpc
import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.agent.v1.agent_pb2 import CommandEngine
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.ids import new_id
from services.common.rpc.status import service_error
from tests.integration.execution.service import Client, State, running
from tests.kit import processes
from tests.kit.uids import have_their_own

TIERS = (sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP, sandbox_pb2.SANDBOX_TIER_NONE)


def limits(**values: float) -> dict[str, Duration | int]:
    return {
        name: Duration(nanos=int(value * 1e9)) if "timeout" in name else int(value) for name, value in values.items()
    }


async def test_a_program_runs_in_its_workspace_and_all_is_recorded(shared: Client) -> None:
    name = new_id("run")
    await shared.start(name, "pwd; cat; echo oops >&2; echo made > file", prompt=b"the prompt\n")
    seen = await shared.watch(name)
    seen.check_whole()
    assert seen.output == b"/workspace\nthe prompt\noops\n"
    assert [event.output.data for event in seen.events if event.output.stream == 2] == [b"oops\n"]
    kinds = [event.WhichOneof("kind") for event in seen.events]
    assert kinds[0] == kinds[-1] == "state_change"
    assert (seen.events[0].state_change.state, seen.events[-1].state_change.state) == ("RUNNING", "SUCCEEDED")
    assert (shared.service.workspace / "file").read_text() == "made\n"
    end = seen.end
    assert (end.state, end.exit_code, end.processes_left) == (State.STATE_SUCCEEDED, 0, 0)
    assert (end.output_bytes, end.reason) == (len(seen.output), "")
    assert end.create_time.ToNanoseconds() <= end.start_time.ToNanoseconds() < end.end_time.ToNanoseconds()
    assert await shared.get(name) == end


async def test_a_prompt_is_an_argument_where_asked_for(shared: Client) -> None:
    spec = shared.service.spec(["/bin/echo", "-n", "do:"], prompt="it ü")
    spec.agent.command.prompt_delivery = CommandEngine.PROMPT_DELIVERY_ARGUMENT
    name = new_id("run")
    await shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
    assert (await shared.watch(name)).output == "do: it ü".encode()


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("code", [3, 137, 255])
async def test_an_exit_code_is_reported_as_it_is(shared: Client, tier: int, code: int) -> None:
    end = await shared.run(new_id("run"), f"exit {code}", sandbox_tier=tier)
    assert (end.state, end.reason, end.exit_code) == (State.STATE_FAILED, "AGENT_FAILED", code)
    assert str(code) in end.message


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (["no-such-agent", "--now"], "BOATYARD_EXECUTION_READ_ONLY_PATHS"),
        ("no-such-agent --now", "BOATYARD_EXECUTION_READ_ONLY_PATHS"),
        (["/etc/passwd"], "BOATYARD_EXECUTION_READ_ONLY_PATHS"),
        ("./no-such-agent.sh --now", "--include-dirty"),
        ("tools/no-such-agent", "--include-dirty"),
        ("touch agent.sh; exec ./agent.sh", "--include-dirty"),
        ("printf '#!/no/such/shell\\n' > agent.sh; chmod +x agent.sh; exec ./agent.sh", "--include-dirty"),
    ],
)
async def test_an_agent_that_is_not_there_says_how_to_mend_it(
    shared: Client, command: str | list[str], advice: str
) -> None:
    end = await shared.run(new_id("run"), command)
    assert (end.state, end.reason) == (State.STATE_FAILED, "AGENT_NOT_INSTALLED")
    assert [each for each in ("BOATYARD_EXECUTION_READ_ONLY_PATHS", "--include-dirty") if each in end.message] == [
        advice
    ]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "line",
    [
        "exit 127",
        "exit 126",
        "echo 'sh: 1: make: not found'; exit 127",
        "echo 'config.yaml: not found' >&2; exit 127",
        "printf 'make: gcc: No such file or directory\\nmake: *** [all] Error 127\\n' >&2; exit 127",
        "echo '/bin/sh: 1: gcc: not found' >&2; echo 'build failed' >&2; exit 127",
    ],
)
async def test_a_program_that_ends_with_what_a_shell_ends_with_is_there(shared: Client, tier: int, line: str) -> None:
    end = await shared.run(new_id("run"), line, sandbox_tier=tier)
    assert (end.state, end.reason) == (State.STATE_FAILED, "AGENT_FAILED")


LINES = {
    "if test -n x; then cat; fi": "",
    "for x in a b; do echo $x-$1; done": "a-it\nb-it\n",
    "case $1 in it) echo found;; esac": "found\n",
    "{ echo in braces; }": "in braces\n",
    "(echo in parentheses)": "in parentheses\n",
    "echo fi": "fi it\n",
    "echo a; echo done": "a\ndone it\n",
    "echo '}'": "} it\n",
    "echo $(echo x)": "x it\n",
    "echo $1;": "it\n",
    "echo do:": "do: it\n",
}


@pytest.mark.parametrize("line", LINES)
async def test_a_line_may_end_in_whatever_a_shell_takes_when_the_prompt_is_an_argument(
    shared: Client, line: str
) -> None:
    spec = shared.service.spec(line, prompt="it")
    spec.agent.command.prompt_delivery = CommandEngine.PROMPT_DELIVERY_ARGUMENT
    name = new_id("run")
    await shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec))
    assert (await shared.watch(name)).output.decode() == LINES[line]


IDENTITY = 'git init -q . && git commit -q --allow-empty -m x && git log -1 --format="%an <%ae> %cn"'
IDENTITIES = {
    IDENTITY: 'ann "b\\c" d <a@example.com> ann "b\\c" d',
    f"git config --global user.name own && {IDENTITY}": "own <a@example.com> own",
    f"git init -q . && git config user.name repo && git config user.email r@x && {IDENTITY}": "repo <r@x> repo",
    f"export GIT_AUTHOR_NAME=env; {IDENTITY}": 'env <a@example.com> ann "b\\c" d',
}


async def test_a_path_of_the_settings_that_is_not_there_is_named_before_anything_is_tried(tmp_path: Path) -> None:
    tool, gone = tmp_path / "tool", tmp_path / "gone"
    tool.touch()
    async with running(tmp_path, READ_ONLY_PATHS=f"{tool}:{gone}:relative") as client:
        described = (await client.stub.DescribeNode(pb.DescribeNodeRequest())).capabilities
        (complaint,) = [each.complaint for each in described if each.name == "read-only paths"]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.start(new_id("run"), "true")

    assert complaint.startswith(f"BOATYARD_EXECUTION_READ_ONLY_PATHS names {gone}, relative, ")
    error = service_error(raised.value)
    assert (error.reason, error.message) == ("SANDBOX_UNAVAILABLE", complaint)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("line", IDENTITIES)
async def test_git_commits_in_a_sandbox_as_the_author_that_it_is_told_unless_it_knows_better(
    shared: Client, tier: int, line: str
) -> None:
    author = {"BOATYARD_AUTHOR_NAME": 'ann "b\\c" d', "BOATYARD_AUTHOR_EMAIL": "a@example.com", "own": "mine"}
    name = new_id("run")
    end = await shared.run(
        name, f'test "$own" = mine && cd $(mktemp -d) && {line}', sandbox_tier=tier, environment=author
    )
    assert end.state == State.STATE_SUCCEEDED
    assert (await shared.watch(name)).output.decode().strip() == IDENTITIES[line]


async def test_a_sandbox_that_cannot_be_made_is_not_the_agents_fault(shared: Client) -> None:
    end = await shared.run(new_id("run"), "true", read_only_paths=["/no/such/path"])
    assert (end.state, end.reason) == (State.STATE_FAILED, "SANDBOX_FAILED")
    assert "/no/such/path" in end.message
    assert end.WhichOneof("outcome") is None


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("bounds", "line", "reason"),
    [
        ({"timeout": 0.3}, "while :; do echo x; sleep 0.02; done", "TIMED_OUT"),
        ({"idle_timeout": 0.3}, "echo x; sleep 100", "IDLE"),
    ],
)
async def test_bounds_end_what_exceeds_them(shared: Client, tier: int, bounds: dict, line: str, reason: str) -> None:
    end = await shared.run(new_id("run"), line, **limits(**bounds), sandbox_tier=tier)
    assert (end.state, end.reason, end.processes_left) == (State.STATE_FAILED, reason, 0)
    assert "0.3 s" in end.message


async def test_output_beyond_the_limit_is_dropped_and_said(shared: Client) -> None:
    name = new_id("flood")
    await shared.start(name, "yes")
    seen = await shared.watch(name)
    assert (seen.end.reason, seen.end.output_bytes, len(seen.output)) == ("OUTPUT_LIMIT", 1_000_000, 1_000_000)


@pytest.mark.parametrize("tier", TIERS)
async def test_a_daemon_does_not_outlive_its_execution(shared: Client, tier: int) -> None:
    name = new_id("daemon")
    end = await shared.run(name, "setsid -f sleep 999; (sleep 998 &) ; echo started; exit 7", sandbox_tier=tier)
    assert (end.exit_code, end.processes_left) == (7, 0)
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": name}) == {}


async def test_what_is_private_stays_so(shared: Client, tmp_path: Path) -> None:
    other = tmp_path / "other-workspace"
    other.mkdir()
    (other / "file").write_text("of another job")
    path = str(shared.service.address).removeprefix("unix:")
    home = shared.service.home
    name = new_id("spy")
    line = (
        f"cat {other}/file {home}/cell-token 2>&1; ls {home} /proc/1/root/root 2>&1; echo $SECRET >/dev/null;"
        f" python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{path}\")' 2>&1 | tail -1;"
        " echo end; sleep 60"
    )
    await shared.start(name, line, environment={"SECRET": "swordfish-4711"})
    seen = await shared.watch(name, until=b"end")
    assert b"FileNotFoundError" in seen.output
    assert b"of another job" not in seen.output
    assert (home / "cell-token").read_bytes().strip() not in seen.output
    assert b"execution.db" not in seen.output
    listing = b"".join(processes._read(pid, "cmdline") for pid in processes._pids())
    assert b"swordfish" not in listing
    run = shared.service.run_directory(name)
    assert not any(b"swordfish" in file.read_bytes() for file in run.iterdir() if file.is_file())
    await shared.stop(name, 0)


async def test_without_a_sandbox_it_is_said_loudly(shared: Client) -> None:
    name = new_id("bare")
    await shared.start(name, "pwd", sandbox_tier=sandbox_pb2.SANDBOX_TIER_NONE)
    seen = await shared.watch(name)
    assert seen.output.strip() == bytes(shared.service.workspace)
    assert any("NO SANDBOX" in event.note.text for event in seen.events)
    assert seen.end.sandbox_tier == sandbox_pb2.SANDBOX_TIER_NONE


async def test_caches_and_tools_are_shown_read_only(shared: Client, tmp_path: Path) -> None:
    (tmp_path / "package").write_text("cached")
    tmp_path.chmod(0o755)  # agents are neither its owner nor root
    line = f"exec 2>/dev/null; cd {tmp_path}; cat package; for p in package new; do echo x >$p || echo refused; done"
    await shared.start(name := new_id("run"), line, read_only_paths=[str(tmp_path)])
    seen = await shared.watch(name)
    assert b"cached" in seen.output, seen.output
    assert seen.output.count(b"refused") == 2
    assert [path.read_text() for path in tmp_path.iterdir()] == ["cached"]


async def test_its_record_says_which_uid_it_had_on_the_host(directory: Path) -> None:
    async with running(directory) as client:
        end = await client.run("own", "stat -c %u /workspace; echo out >/dev/stdout; echo err >/dev/stderr")
        seen = await client.watch("own")
        assert seen.output.splitlines() in ([b"1000", b"out", b"err"], [b"1000", b"err", b"out"])
        assert end.HasField("host_uid") == have_their_own()
        if have_their_own():
            assert end.host_uid == client.service.workspace.stat().st_uid
            os.chown(client.service.workspace, 0, 0)
            assert not (await client.run("roots", "touch made")).HasField("host_uid"), "it is as before it was known"
            assert (client.service.workspace / "made").stat().st_uid == 0
        node = await client.stub.DescribeNode(pb.DescribeNodeRequest())
        (uid,) = (each for each in node.capabilities if each.name == "uid")
        assert uid.provided_by == ("workspaces" if have_their_own() else "bounds")
