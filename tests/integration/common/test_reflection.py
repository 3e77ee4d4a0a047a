"""Tools that have no .proto file at hand can list and call a service."""

import asyncio
import json
import sys
from pathlib import Path

from tests.kit.servers import TOKEN, serving
from tests.unit.common.rpc.echo import Echo

BUF = Path(sys.executable).parent / "buf"


async def buf_curl(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        BUF,
        "curl",
        "--protocol=grpc",
        "--http2-prior-knowledge",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def test_buf_curl_lists_and_asks_for_health_without_a_token() -> None:
    async with serving(Echo().registration()) as server:
        code, out, err = await buf_curl("--list-services", f"http://{server.address}")
        assert (code, err) == (0, "")
        assert {"boatyard.test.v1.EchoService", "grpc.health.v1.Health"} <= set(out.split())
        code, out, err = await buf_curl(f"http://{server.address}/grpc.health.v1.Health/Check")
        assert (code, json.loads(out)) == (0, {"status": "SERVING"}), err


async def test_reflection_can_be_off() -> None:
    async with serving(Echo().registration(), reflection=False) as server:
        token = ("-H", f"authorization: Bearer {TOKEN}")
        code, _, err = await buf_curl("--list-services", *token, f"http://{server.address}")
        assert code != 0
        assert "unimplemented" in err.lower() or "reflection" in err.lower()
