"""Agents that are spoken to: a small peer of ours, in a workspace of its own, whose script a test writes."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boatyard.agent.v1.agent_pb2 import CommandEngine
from boatyard.execution.v1 import execution_pb2 as pb

from services.common.ids import new_id
from tests.integration.execution.service import Client, Seen
from tests.kit import acp_peer
from tests.kit.uids import give_to_agents

PROGRAM = Path(acp_peer.__file__).read_bytes()
PEER = shlex.join([sys.executable, "-ISs", "peer.py"])


@dataclass
class Talk:
    """One agent that is spoken to."""

    client: Client
    name: str
    workspace: Path

    @property
    def heard(self) -> list[dict[str, Any]]:
        """What the agent was told."""
        return [json.loads(line) for line in self._lines("heard")]

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """What it was answered."""
        return [json.loads(line) for line in self._lines("outcomes")]

    def told(self, method: str) -> list[dict[str, Any]]:
        return [each["params"] for each in self.heard if each.get("method") == method]

    def write(self, script: dict[str, Any]) -> None:
        (self.workspace / "script.json").write_text(json.dumps(script))

    def _lines(self, name: str) -> list[str]:
        path = self.workspace / name
        return path.read_text().splitlines() if path.exists() else []

    async def begin(self, line: str = PEER, **fields: Any) -> str:
        """Start the agent, and return the id of its execution; `fields` are of its settings and specification."""
        own = {name: fields.pop(name) for name in {*CommandEngine.DESCRIPTOR.fields_by_name} & fields.keys()}
        spec = self.client.service.spec(line, **{"prompt": "Fix it.", **fields})
        spec.layout.path = str(self.workspace)
        if not spec.agent.command.preset:
            spec.agent.command.prompt_delivery = CommandEngine.PROMPT_DELIVERY_ACP
        spec.agent.command.MergeFrom(CommandEngine(**own))
        self.name = new_id("talk")
        await self.client.stub.StartExecution(pb.StartExecutionRequest(execution_id=self.name, spec=spec), timeout=30)
        return self.name

    async def run(self, line: str = PEER, **fields: Any) -> Seen:
        """Start the agent, and follow it to its end."""
        seen = await self.client.watch(await self.begin(line, **fields))
        seen.check_whole()
        return seen


def talk(client: Client, *turns: list[dict[str, Any]], **script: Any) -> Talk:
    """Return an agent whose turns have these steps; `script` is the rest of its script."""
    workspace = client.service.workspace / new_id("work")
    workspace.mkdir()
    (workspace / "peer.py").write_bytes(PROGRAM)
    give_to_agents(workspace)
    one = Talk(client, "", workspace)
    one.write({"turns": turns, **script})
    return one
