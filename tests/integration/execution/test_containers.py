"""Tier `container`: an engine's containers keep the same promises as a sandbox."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import event_pb2
from boatyard.execution.v1 import execution_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.common.ids import new_id
from services.common.rpc.status import service_error
from services.execution.processes.containers import ContainerDirectory
from services.sandbox.container_engines import Engine
from tests.integration.execution.model import playing, results
from tests.integration.execution.service import Client, State, running
from tests.integration.execution.test_network import decisions
from tests.integration.execution.test_survival import runner_of
from tests.integration.execution.test_transparent_network import Greeter, Server
from tests.kit import containers, processes
from tests.kit.replay import bash

pytestmark = [pytest.mark.slow]
CONTAINER = sandbox_pb2.SANDBOX_TIER_CONTAINER
_ENGINES = containers.available_engines()


@pytest.fixture(scope="module", params=sorted(_ENGINES) or [None])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param is None:
        pytest.skip("no container engine answers here: neither podman nor docker")
    return _ENGINES[request.param]


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    with containers.image(engine, f"localhost/{new_id('boatyard-test').lower()}:latest") as name:
        yield name


@pytest_asyncio.fixture(scope="module")
async def contained(engine: Engine, image: str) -> AsyncIterator[Client]:
    directory = Path(tempfile.mkdtemp(prefix="containers-"))
    settings = {"CONTAINER_IMAGE": image, "CONTAINER_ENGINE": Path(engine.program).name}
    async with running(directory, SANDBOX_TIER="container", **settings) as client:
        yield client
    shutil.rmtree(directory)


def check_nothing_left(client: Client, engine: Engine, name: str, end: pb.NodeExecution) -> None:
    assert end.processes_left == 0
    assert processes.with_environment({"BOATYARD_EXECUTION_ID": name}) == {}
    assert ContainerDirectory(client.service.run_directory(name)).name not in containers.names(engine)


async def test_an_exit_code_is_the_programs_own_and_nothing_is_left(contained: Client, engine: Engine) -> None:
    async def check(code: int) -> None:
        name = new_id("code")
        end = await contained.run(name, f"setsid sleep 999 & (setsid sleep 998 &) ; exit {code}")
        assert (end.WhichOneof("outcome"), end.exit_code) == ("exit_code", code)
        assert end.end_verified_by == pb.NodeExecution.END_VERIFICATION_PID_NAMESPACE
        check_nothing_left(contained, engine, name, end)
        assert not (contained.service.run_directory(name) / "container").exists()

    await asyncio.gather(*map(check, (0, 126, 127, 137)))


async def test_streams_are_apart_and_a_workspace_is_the_owners(contained: Client) -> None:
    file = contained.service.workspace / new_id("file")
    line = f'cat; echo to-stderr >&2; echo "$OWN $HOME $PWD"; id -u >/workspace/{file.name}'
    name, own = new_id("streams"), "it's $HOME,\n`id`"
    await contained.start(name, line, prompt="given\n" * 40_000, environment={"OWN": own})
    seen = await contained.watch(name)
    seen.check_whole()
    streams = dict.fromkeys((event_pb2.OutputChunk.STREAM_STDOUT, event_pb2.OutputChunk.STREAM_STDERR), b"")
    for event in seen.events:
        if event.HasField("output"):
            streams[event.output.stream] += event.output.data
    assert (
        streams[event_pb2.OutputChunk.STREAM_STDOUT]
        == b"given\n" * 40_000 + own.encode() + b" /home/agent /workspace\n"
    )
    assert streams[event_pb2.OutputChunk.STREAM_STDERR] == b"to-stderr\n"
    assert (file.stat().st_uid, file.stat().st_gid) == (os.geteuid(), os.getegid())


async def test_output_is_seen_while_the_program_runs_and_the_term_signal_reaches_it(
    contained: Client, engine: Engine
) -> None:
    name = new_id("term")
    await contained.start(name, "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    await contained.watch(name, until=b"ready")
    await contained.stop(name, grace=30)
    end = await contained.end(name)
    assert (await contained.watch(name)).output == b"ready\nasked\n"
    assert (end.state, end.exit_code) == (State.STATE_CANCELLED, 9)
    check_nothing_left(contained, engine, name, end)


async def test_who_ignores_the_term_signal_is_ended_all_the_same(contained: Client, engine: Engine) -> None:
    name = new_id("stubborn")
    line = (
        "trap '' TERM HUP INT; (setsid sleep 999 &); setsid -f sh -c 'while :; do sleep 1; done'; echo ready; sleep 999"
    )
    await contained.start(name, line)
    await contained.watch(name, until=b"ready")
    await contained.stop(name, grace=0.2)
    end = await contained.end(name)
    assert (end.state, end.signal) == (State.STATE_CANCELLED, signal.SIGKILL)
    check_nothing_left(contained, engine, name, end)


async def test_a_container_that_is_not_there_yet_is_cancelled_too(contained: Client, engine: Engine) -> None:
    async def check(after_s: float) -> None:
        name = new_id("early")
        await contained.start(name, "sleep 999")
        await asyncio.sleep(after_s)  # at any point while the container is made
        await contained.stop(name, grace=0)
        end = await contained.end(name)
        assert end.state == State.STATE_CANCELLED
        check_nothing_left(contained, engine, name, end)

    await asyncio.gather(*map(check, (0, 0.2, 0.4, 0.6, 0.9)))


async def test_a_timeout_ends_it(contained: Client, engine: Engine) -> None:
    name = new_id("timeout")
    end = await contained.run(name, "sleep 999", timeout=Duration(seconds=3))
    assert (end.state, end.reason) == (State.STATE_FAILED, "TIMED_OUT")
    check_nothing_left(contained, engine, name, end)


async def test_a_killed_runner_takes_its_container_along(contained: Client, engine: Engine) -> None:
    name = new_id("lost")
    await contained.start(name, "(setsid sleep 999 &); echo ready; sleep 999")
    await contained.watch(name, until=b"ready")
    os.kill(runner_of(contained.service, name), signal.SIGKILL)
    end = await contained.end(name)
    assert (end.reason, end.end_verified_by) == ("RUNNER_LOST", pb.NodeExecution.END_VERIFICATION_CONTAINER)
    check_nothing_left(contained, engine, name, end)


async def test_a_killed_runner_without_a_service_takes_its_container_along(
    directory: Path, engine: Engine, image: str
) -> None:
    name = new_id("alone")
    async with running(directory, CONTAINER_IMAGE=image, CONTAINER_ENGINE=Path(engine.program).name) as client:
        await client.start(name, "(setsid sleep 999 &); echo ready; sleep 999", sandbox_tier=CONTAINER)
        await client.watch(name, until=b"ready")
        runner = runner_of(client.service, name)
        client.service.kill()
        os.kill(runner, signal.SIGKILL)
        async with asyncio.timeout(30):
            while processes.with_environment({"BOATYARD_EXECUTION_ID": name}):
                await asyncio.sleep(0.05)
        client.service.start()
        end = await client.end(name)
        assert end.reason == "RUNNER_LOST"
        async with asyncio.timeout(30):  # until the service has looked for orphaned containers
            while ContainerDirectory(client.service.run_directory(name)).name in containers.names(engine):
                await asyncio.sleep(0.05)


async def test_a_runner_goes_on_while_the_service_is_away(directory: Path, engine: Engine, image: str) -> None:
    async with running(directory, CONTAINER_IMAGE=image, CONTAINER_ENGINE=Path(engine.program).name) as client:
        line = "echo ready; until [ -e go ]; do sleep 0.05; done; echo gone; exit 5"
        await client.start("run", line, sandbox_tier=CONTAINER)
        await client.watch("run", until=b"ready")
        client.service.kill()
        client.service.start()
        await client.stub.ListExecutions(pb.ListExecutionsRequest(), wait_for_ready=True, timeout=60)
        (client.service.workspace / "go").touch()
        seen = await client.watch("run")
        assert (seen.output, seen.end.exit_code) == (b"ready\ngone\n", 5)
        check_nothing_left(client, engine, "run", seen.end)


_BORDER = """
for file in /x /etc/x /usr/x /bin/x /run/x /run/boatyard/x /proc/sys/kernel/core_pattern /sys/x; do
    (echo 1 >$file) 2>/dev/null && echo "written: $file"
done
for file in /tmp/x /home/agent/x /workspace/x; do (echo 1 >$file) || echo "not written: $file"; done
while read -r name value _; do
    case $name in CapEff:|CapPrm:|CapBnd:|CapAmb:) [ $value = 0000000000000000 ] || echo "$name $value" ;; esac
    case $name in NoNewPrivs:) [ $value = 1 ] || echo "$name $value" ;; esac
    case $name in Seccomp:) [ $value = 2 ] || echo "$name $value" ;; esac
done </proc/self/status
while read -r name _; do case $name in Inter-*|face*|lo:*) ;; *) echo "interface $name" ;; esac; done </proc/net/dev
for file in "$@"; do [ -e "$file" ] && echo "seen: $file"; done
cat /run/boatyard/begin 2>/dev/null
exit 0
"""


async def test_it_reaches_what_is_its_own_alone(contained: Client) -> None:
    home = contained.service.home
    hidden = [home, home / "cell-token", home / "execution", Path.cwd()]
    argv = ["/bin/sh", "-c", _BORDER, "sh", *map(str, hidden)]
    name = new_id("border")
    await contained.start(name, argv, secrets={"SECRET": "not-to-be-seen"})
    assert (await contained.watch(name)).output == b""
    assert (await contained.end(name)).exit_code == 0


async def test_neither_arguments_nor_environment_are_told_to_the_engine(contained: Client, engine: Engine) -> None:
    name = new_id("told")
    await contained.start(name, "echo ready; sleep 999 # argument-of-ours", secrets={"SECRET": "secret-of-ours"})
    await contained.watch(name, until=b"ready")
    command = [engine.program, "inspect", ContainerDirectory(contained.service.run_directory(name)).name]
    said = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
    assert b"argument-of-ours" not in said
    assert b"secret-of-ours" not in said
    await contained.stop(name, grace=0)
    await contained.end(name)


async def test_a_secret_is_a_file_of_the_container_alone(contained: Client) -> None:
    name, spec = (
        new_id("file"),
        contained.service.spec('cd "$BOATYARD_SECRETS_DIR" && printf "%s\\n" "$KEY" | cmp - KEY'),
    )
    spec.agent.secrets["KEY"] = "one\ntwo of ours"
    await contained.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=60)
    assert (await contained.end(name)).exit_code == 0


async def test_a_limit_of_memory_is_told_as_the_reason(contained: Client) -> None:
    limits = {"memory_bytes": 48 << 20}
    end = await contained.run(new_id("memory"), "head -c 200m /dev/zero | tail >/dev/null; exit 1", **limits)
    assert (end.state, end.reason) == (State.STATE_FAILED, "MEMORY_LIMIT")


async def test_a_limit_of_processes_is_told_as_the_reason(contained: Client) -> None:
    line = "i=0; while [ $i -lt 200 ]; do sleep 999 & i=$((i+1)); done; wait"
    end = await contained.run(new_id("forks"), line, processes=20)
    assert (end.state, end.reason) == (State.STATE_FAILED, "PROCESS_LIMIT")


@pytest.mark.parametrize("network", ["OPEN", "ALLOW_LIST"])
async def test_a_container_has_the_same_networks(engine: Engine, image: str, tmp_path: Path, network: str) -> None:
    """It reaches by name what may be reached, and nothing that is near."""
    own, address = socket.gethostname(), socket.gethostbyname(socket.gethostname())
    with Server(("0.0.0.0", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever).start()
        port = server.server_address[1]
        places = (own, "127.0.0.1", "169.254.169.254")
        line = "; ".join(f"bash -c 'head -c 5 </dev/tcp/{place}/{port}; echo'" for place in places)
        hosts = [f"*:{port}"] if network == "ALLOW_LIST" else []
        chosen = {"network": f"NETWORK_{network}", "allowed_hosts": hosts}
        settings = {"CONTAINER_ENGINE": Path(engine.program).name, "NETWORK_ALLOWED_ADDRESSES": f"{address}/32"}
        async with running(tmp_path, SANDBOX_TIER="container", CONTAINER_IMAGE=image, **settings) as client:
            name = new_id("network")
            await client.start(name, line, **chosen)
            seen = await client.watch(name)
        server.shutdown()
    heard = b"".join(
        event.output.data for event in seen.events if event.output.stream == event_pb2.OutputChunk.STREAM_STDOUT
    )
    assert heard.split() == [b"hello"], seen.output
    assert (own, port, True, "") in decisions(seen)
    assert ("169.254.169.254", port, False, "ADDRESS_NOT_ALLOWED") in decisions(seen)
    check_nothing_left(client, engine, name, seen.end)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"environment": {"no-name": ""}}, ["spec.environment", "no-name"]),
        ({"image": "x", "sandbox_tier": sandbox_pb2.SANDBOX_TIER_BUBBLEWRAP}, ["spec.agent.image", "CONTAINER"]),
    ],
)
async def test_what_a_container_cannot_do_is_refused_by_its_field(
    contained: Client, fields: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await contained.start(new_id("refused"), "true", **fields)
    error = service_error(caught.value)
    assert error.reason == "INVALID_FIELDS"
    assert all(word in error.message for word in words), error.message


@pytest.mark.parametrize("other", ["localhost/other:1", "--privileged"])
async def test_an_image_that_is_not_allowed_is_refused(contained: Client, other: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await contained.start(new_id("refused"), "true", image=other)
    error = service_error(caught.value)
    assert error.reason == "IMAGE_NOT_ALLOWED"
    assert "spec.agent.image" in error.message
    assert "BOATYARD_EXECUTION_CONTAINER_IMAGES" in error.message


async def test_an_image_that_is_not_there_says_how_to_get_it(directory: Path, engine: Engine) -> None:
    name = Path(engine.program).name
    async with running(directory, CONTAINER_IMAGE="localhost/nowhere:1", CONTAINER_ENGINE=name) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.start("run", "true", sandbox_tier=CONTAINER)
    error = service_error(caught.value)
    assert error.reason == "SANDBOX_UNAVAILABLE"
    assert f"{name} pull localhost/nowhere:1" in error.message


async def test_a_models_tools_are_in_the_container(directory: Path, engine: Engine, image: str) -> None:
    settings = {"SANDBOX_TIER": "container", "CONTAINER_IMAGE": image, "CONTAINER_ENGINE": Path(engine.program).name}
    replies = [{"tools": [bash("pwd; echo made >file")]}, {"text": "All is done."}]
    async with playing(directory, replies, READ_ONLY_PATHS=sys.base_prefix, **settings) as model:
        name = new_id("model")
        seen = await model.run(name, sandbox_tier=CONTAINER)
        assert (seen.end.state, seen.end.model_use.last_words) == (State.STATE_SUCCEEDED, "All is done."), seen.end
        assert results(seen)[0].splitlines()[0] == "/workspace"
        assert (model.client.service.workspace / "file").read_text() == "made\n"
        check_nothing_left(model.client, engine, name, seen.end)
