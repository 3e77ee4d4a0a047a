"""Secrets of an execution: its program gets them, and nobody who watches it sees them."""

import base64
import secrets
from pathlib import Path

import pytest
from boatyard.agent.v1 import sandbox_pb2
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import Invalid
from services.common.home import Home
from services.common.ids import new_id
from tests.integration.execution.model import of, playing, results
from tests.integration.execution.service import Client, State, running
from tests.integration.execution.test_contract import refused

DRIP = """
import os
for character in os.environ["TOKEN"]:
    os.write(1, character.encode())
    os.write(2, character.encode())
os.write(1, b"|" + os.environ["TOKEN"].encode().hex().encode())
print("|" + "ghp" + "_" + "a1B2" * 9, flush=True)
"""


async def test_a_program_prints_what_nobody_reads(shared: Client) -> None:
    name, value = new_id("leak"), secrets.token_urlsafe(24)
    token = {"TOKEN": value}
    line = f"test ${{#TOKEN}} = {len(value)} && /usr/bin/env python3 -c '{DRIP}'; echo $TOKEN >&2; exit 3"
    await shared.start(name, line, secrets=token)
    seen = await shared.watch(name)
    written = [b"".join(e.output.data for e in seen.events if e.output.stream == stream) for stream in (1, 2)]
    assert written == [b"[redacted:TOKEN]|[redacted:TOKEN]|[redacted:github]\n", b"[redacted:TOKEN]" * 2 + b"\n"]
    assert seen.end.exit_code == 3
    run = shared.service.run_directory(name)
    assert not [file for file in run.iterdir() if file.is_file() and value.encode() in file.read_bytes()]


async def test_an_agent_that_reads_the_cells_own_tokens_writes_them_nowhere(directory: Path) -> None:
    """Also tokens that a version made which gave them no prefix."""
    home = Home(directory / "home")
    (home.directory() / "token").touch(mode=0o600)
    home.admin_token_file.write_text(old := secrets.token_urlsafe(32))
    async with running(directory) as client:
        line = f"cat {home.admin_token_file} {home.cell_token_file}; base64 {home.cell_token_file}"
        await client.start("thief", line, sandbox_tier=sandbox_pb2.SANDBOX_TIER_NONE)
        seen = await client.watch("thief")
        cells, made = home.cell_token(), client.service.run_directory("thief")
    assert seen.end.state == State.STATE_SUCCEEDED
    assert seen.output.startswith(b"[redacted:BOATYARD_TOKEN][redacted:boatyard]")
    kept = b"".join(file.read_bytes() for file in made.iterdir() if file.is_file())
    assert not [token for token in (old, cells, cells[len("boatyard_") :]) if token.encode() in kept]
    assert base64.b64encode(cells.encode())[4:-4] not in kept.replace(b"\n", b"")


async def test_a_secret_is_a_file_of_the_sandbox_alone(shared: Client) -> None:
    name, key = new_id("file"), f"-----BEGIN\n{secrets.token_hex(24)} $HOME '\\n\n-----END"
    line = (
        'cd "$BOATYARD_SECRETS_DIR" && ls && stat -c %a . * && printf "%s\\n" "$KEY" | cmp - KEY && cat _2 name; pwd;'
        ' cat; echo "$1"; find /workspace -name KEY'
    )
    spec = shared.service.spec(line, "a prompt")
    spec.agent.secrets.update({"KEY": key, "_2": secrets.token_hex(8), "name": secrets.token_hex(8)})
    await shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=60)
    seen = await shared.watch(name)
    assert seen.output.decode().split("\n")[:-1] == [
        *("KEY", "_2", "name", "700", "600", "600", "600", "[redacted:_2]", "[redacted:name]"),
        *("/tmp/.boatyard/secrets", "a prompt"),
    ]
    assert not [path for path in shared.service.run_directory(name).iterdir() if key.encode() in path.read_bytes()]


async def test_a_limit_that_keeps_secrets_from_files_keeps_no_program_from_running(shared: Client) -> None:
    spec = shared.service.spec("test -n $KEY; echo done $?", file_size_bytes=4)
    spec.agent.secrets["KEY"] = secrets.token_hex(800)
    name = new_id("file")
    await shared.stub.StartExecution(pb.StartExecutionRequest(execution_id=name, spec=spec), timeout=60)
    assert (await shared.watch(name)).output.endswith(b"boatyard: secrets could not be written to files\ndone 0\n")


@pytest.mark.slow
async def test_what_a_model_calls_and_says_is_redacted(directory: Path) -> None:
    value = secrets.token_urlsafe(24)
    replies = [
        {"text": f"I use {value} now.", "tools": [{"name": "bash", "input": {"command": f"echo {value} $TOKEN"}}]},
        {"text": "Done."},
    ]
    async with playing(directory, replies) as model:
        seen = await model.run("run", secrets={"TOKEN": value})
    assert seen.end.state == State.STATE_SUCCEEDED
    assert value not in str(seen)
    assert "".join(text.text for text in of(seen, "text")) == "I use [redacted:TOKEN] now.Done."
    assert [call.input for call in of(seen, "tool_call")] == ['{"command": "echo [redacted:TOKEN] $TOKEN"}']
    assert results(seen) == ["[redacted:TOKEN] [redacted:TOKEN]"]


async def test_a_secret_that_cannot_be_kept_is_refused(shared: Client) -> None:
    spec = shared.service.spec("true", environment={"A": "x"}, secrets={"A": "long enough", "B": " tiny\n"})
    error = await refused(shared.stub.StartExecution(pb.StartExecutionRequest(execution_id="secret", spec=spec)))
    assert isinstance(error, Invalid)
    assert [field for field, _ in error.violations] == ["spec.secrets", 'spec.secrets["B"]']
