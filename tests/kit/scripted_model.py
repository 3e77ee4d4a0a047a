"""A model that follows a script, for real agents: it speaks Messages, Responses, Chat Completions and generateContent.

What it answers depends on the request alone: as many tools as have answered in it, so many steps have been done. A
step is a line for a shell, for which the agent's own tool is called; the last one is said as text.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS = {"in": 1000, "out": 100, "cached": 20}
"""What each answer says that it used."""

_SHELLS = {
    "Bash": lambda line: {"command": line, "description": "Run it"},
    "bash": lambda line: {"command": line, "description": "Run it"},
    "exec_command": lambda line: {"cmd": line},
    "shell_command": lambda line: {"command": line},
    "shell": lambda line: {"command": ["bash", "-lc", line]},
    "run_shell_command": lambda line: {"command": line, "description": "Run it"},
}
"""The tools of agents that run a line, and what they are given."""


@dataclass
class Script:
    """`steps` are lines for a shell, `says` is the final text, `status` an HTTP status for every request."""

    steps: Sequence[str]
    says: str = "All is done."
    status: int = 200


@dataclass
class Model:
    """A server that answers by `script`; `requests` are the paths and bodies of all that it was asked."""

    url: str
    script: Script
    requests: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextmanager
def scripted_model(script: Script, port: int = 0) -> Iterator[Model]:
    """Serve a model at a port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.model = model = Model(f"http://127.0.0.1:{server.server_port}", script)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_GET(self) -> None:
        if self.headers.get("upgrade"):
            self._send(426, b"{}")
            return
        self._send(200, b'{"data": [], "models": []}')

    def do_POST(self) -> None:
        model: Model = self.server.model  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = self.path.partition("?")[0]
        model.requests.append((path, body))
        model.keys.add(
            self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or self.headers["authorization"] or ""
        )
        if model.script.status != 200:
            error = {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "by the script", "code": model.script.status},
            }
            self._send(model.script.status, json.dumps(error).encode())
        elif path.endswith("count_tokens"):
            self._send(200, b'{"input_tokens": 1000}')
        elif path.endswith(":countTokens"):
            self._send(200, b'{"totalTokens": 1000}')
        elif path.endswith("/messages"):
            self._answer(body, _messages(body, model.script), _message_of)
        elif path.endswith("/responses"):
            self._answer({**body, "stream": True}, _responses(body, model.script), lambda events: events)
        elif path.endswith("/chat/completions"):
            self._answer(body, _chat(body, model.script), _completion_of)
        elif path.endswith(":streamGenerateContent"):
            self._answer({"stream": True}, _gemini(body, model.script), lambda events: events)
        elif path.endswith(":generateContent"):
            self._send(200, json.dumps(list(_gemini(body, model.script))[-1][1]).encode())
        else:
            self._send(404, b'{"error": {"message": "unknown path"}}')

    def _answer(self, body: Mapping[str, Any], events: Iterator[tuple[str, Any]], whole: Any) -> None:
        if not body.get("stream"):
            self._send(200, json.dumps(whole(list(events))).encode())
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for name, data in events:
            line = data if isinstance(data, str) else json.dumps(data)
            self.wfile.write((f"event: {name}\n" if name else "").encode() + f"data: {line}\n\n".encode())
        self.close_connection = True

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")


def _next(tools: Sequence[str], answered: int, script: Script) -> tuple[str, Mapping[str, Any]] | None:
    """Return the tool to call next, and what it is given; None when the script is over, or the agent has no shell."""
    shell = next((name for name in tools if name in _SHELLS), None)
    if shell is None or answered >= len(script.steps):
        return None
    return shell, _SHELLS[shell](script.steps[answered])


def _messages(body: Mapping[str, Any], script: Script) -> Iterator[tuple[str, Any]]:
    answered = sum(
        block.get("type") == "tool_result"
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
    )
    step = _next([tool.get("name", "") for tool in body.get("tools", [])], answered, script)
    usage = {
        "input_tokens": TOKENS["in"],
        "output_tokens": 1,
        "cache_read_input_tokens": TOKENS["cached"],
        "cache_creation_input_tokens": 0,
    }
    head = {
        "id": f"msg_{answered}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
    }
    yield "message_start", {"type": "message_start", "message": {**head, "stop_sequence": None, "usage": usage}}
    says = script.says if step is None else f"Step {answered + 1}."
    blocks: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"type": "text", "text": ""}, {"type": "text_delta", "text": says})
    ]
    if step is not None:
        call = {"type": "tool_use", "id": f"toolu_{answered}", "name": step[0], "input": {}}
        blocks.append((call, {"type": "input_json_delta", "partial_json": json.dumps(step[1])}))
    for index, (block, delta) in enumerate(blocks):
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": block}
        yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    reason = "end_turn" if step is None else "tool_use"
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": {**usage, "output_tokens": TOKENS["out"]}}
    yield "message_stop", {"type": "message_stop"}


def _message_of(events: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    message = events[0][1]["message"]
    for _, event in events:
        if event["type"] == "content_block_start":
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            message["content"][-1]["text"] = event["delta"]["text"]
        elif event["type"] == "content_block_delta":
            message["content"][-1]["input"] = json.loads(event["delta"]["partial_json"])
        elif event["type"] == "message_delta":
            message |= {**event["delta"], "usage": event["usage"]}
    return message


def _responses(body: Mapping[str, Any], script: Script) -> Iterator[tuple[str, Any]]:
    items = body["input"] if isinstance(body["input"], list) else []
    answered = sum(str(item.get("type", "")).endswith("_call_output") for item in items)
    step = _next([tool.get("name", "") for tool in body.get("tools", [])], answered, script)
    identity = f"resp_{answered}"
    said = {"type": "message", "id": f"msg_{answered}", "role": "assistant", "status": "completed"}
    says = script.says if step is None else f"Step {answered + 1}."
    output: list[dict[str, Any]] = [{**said, "content": [{"type": "output_text", "text": says, "annotations": []}]}]
    if step is not None:
        call = {"type": "function_call", "id": f"fc_{answered}", "call_id": f"call_{answered}", "status": "completed"}
        output.append({**call, "name": step[0], "arguments": json.dumps(step[1])})
    base = {
        "id": identity,
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "in_progress",
        "output": [],
    }
    yield "response.created", {"type": "response.created", "response": base}
    for index, item in enumerate(output):
        yield (
            "response.output_item.added",
            {"type": "response.output_item.added", "output_index": index, "item": {**item, "status": "in_progress"}},
        )
        if item["type"] == "message":
            where = {"item_id": item["id"], "output_index": index, "content_index": 0}
            yield "response.output_text.delta", {"type": "response.output_text.delta", **where, "delta": says}
        yield "response.output_item.done", {"type": "response.output_item.done", "output_index": index, "item": item}
    usage = {
        "input_tokens": TOKENS["in"],
        "input_tokens_details": {"cached_tokens": TOKENS["cached"]},
        "output_tokens": TOKENS["out"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": TOKENS["in"] + TOKENS["out"],
    }
    done = {**base, "status": "completed", "output": output, "usage": usage}
    yield "response.completed", {"type": "response.completed", "response": done}


def _chat(body: Mapping[str, Any], script: Script) -> Iterator[tuple[str, Any]]:
    answered = sum(message["role"] == "tool" for message in body["messages"])
    step = _next([tool["function"]["name"] for tool in body.get("tools", [])], answered, script)
    head = {"id": f"chat_{answered}", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    says = script.says if step is None else f"Step {answered + 1}."
    delta: dict[str, Any] = {"role": "assistant", "content": says}
    if step is not None:
        function = {"name": step[0], "arguments": json.dumps(step[1])}
        delta["tool_calls"] = [{"index": 0, "id": f"call_{answered}", "type": "function", "function": function}]
    yield "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = "stop" if step is None else "tool_calls"
    total = TOKENS["in"] + TOKENS["out"]
    usage = {"prompt_tokens": TOKENS["in"], "completion_tokens": TOKENS["out"], "total_tokens": total}
    yield "", {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}
    yield "", "[DONE]"


def _completion_of(events: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    said, end = events[0][1], events[1][1]
    choice = {"index": 0, "message": said["choices"][0]["delta"], "finish_reason": end["choices"][0]["finish_reason"]}
    return {**said, "object": "chat.completion", "choices": [choice], "usage": end["usage"]}


def _gemini(body: Mapping[str, Any], script: Script) -> Iterator[tuple[str, Any]]:
    parts = [part for content in body.get("contents", []) for part in content.get("parts", [])]
    answered = sum("functionResponse" in part for part in parts)
    declared = [each for tool in body.get("tools", []) for each in tool.get("functionDeclarations", [])]
    step = _next([each["name"] for each in declared], answered, script)
    said: list[dict[str, Any]] = [{"text": script.says if step is None else f"Step {answered + 1}."}]
    if step is not None:
        said.append({"functionCall": {"name": step[0], "args": step[1]}})
    usage = {
        "promptTokenCount": TOKENS["in"],
        "candidatesTokenCount": TOKENS["out"],
        "cachedContentTokenCount": TOKENS["cached"],
        "totalTokenCount": TOKENS["in"] + TOKENS["out"],
    }
    candidate = {"content": {"role": "model", "parts": said}, "finishReason": "STOP", "index": 0}
    yield (
        "",
        {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted", "responseId": f"r{answered}"},
    )
