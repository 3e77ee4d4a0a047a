"""A small agent that speaks the Agent Client Protocol as a script tells it to, with the quirks of real ones on demand.

It is a program of its own, which needs nothing but Python. `script.json` in its working directory has

    initialize, session   what it answers there, beside what it must
    silent                the methods that it does not answer
    refuses               the methods that it answers with an error
    history               updates that it replays when its session is loaded
    late                  true to replay them when it has said that it is loaded
    turns                 for each turn its steps, each an object with one key:
        update            an update of the session
        ask               a permission request, whose outcome becomes a line of `outcomes`
        call              any request, [method, parameters], whose answer becomes a line of `outcomes`
        run               a line for /bin/sh, whose output is that of a tool call
        write             text on its standard output, as it is
        until             a file that it waits for, or "cancel"
        stop, error       how the turn ends; {"stop": "end_turn"} is the default
        exit              the exit code with which it ends at once

`heard` gets every line that it reads. It does not end when its input ends if `stubborn` is true.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

SESSION = "sess-1"


class Peer:
    def __init__(self) -> None:
        self.script = json.loads(Path("script.json").read_text())
        self.turns = list(self.script.get("turns", [[]]))
        self.lines: queue.Queue = queue.Queue()
        self.cancelled = threading.Event()
        self.asked = 0
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        with Path("heard").open("a") as heard:
            for line in sys.stdin:
                heard.write(line)
                heard.flush()
                message = json.loads(line)
                if message.get("method") == "session/cancel":
                    self.cancelled.set()
                self.lines.put(message)
        self.lines.put(None)

    def send(self, **message: object) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    def update(self, update: dict) -> None:
        self.send(method="session/update", params={"sessionId": SESSION, "update": update})

    def serve(self) -> None:
        while (message := self.lines.get()) is not None:
            method = message.get("method")
            if "id" not in message or method is None or method in self.script.get("silent", []):
                continue
            if method in self.script.get("refuses", []):
                self.send(id=message["id"], error={"code": -32000, "message": f"no {method} today"})
            elif method == "session/prompt":
                self.send(id=message["id"], **self.turn(self.turns.pop(0) if self.turns else []))
            else:
                self.send(id=message["id"], result=self.result(method))
                if method == "session/load" and self.script.get("late"):
                    self.replay()
        while self.script.get("stubborn"):
            time.sleep(60)

    def replay(self) -> None:
        for update in self.script.get("history", []):
            self.update(update)

    def result(self, method: str) -> dict:
        if method == "initialize":
            return {"protocolVersion": 1, "agentCapabilities": {}, **self.script.get("initialize", {})}
        if method == "session/new":
            return {"sessionId": SESSION, **self.script.get("session", {})}
        if method == "session/load":
            if not self.script.get("late"):
                self.replay()
            return self.script.get("session", {})
        return {}

    def turn(self, steps: list) -> dict:
        self.cancelled.clear()
        for step in steps:
            ((kind, what),) = step.items()
            match kind:
                case "stop":
                    return {"result": {"stopReason": what}}
                case "error":
                    return {"error": what}
                case "exit":
                    sys.stdout.flush()
                    sys.exit(what)
                case _:
                    getattr(self, f"do_{kind}")(what)
        return {"result": {"stopReason": "cancelled" if self.cancelled.is_set() else "end_turn"}}

    def do_update(self, update: dict) -> None:
        self.update(update)

    def do_write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def do_until(self, what: str) -> None:
        while not (self.cancelled.is_set() if what == "cancel" else Path(what).exists()):
            time.sleep(0.01)

    def do_ask(self, params: dict) -> None:
        self.do_call(["session/request_permission", {"sessionId": SESSION, **params}])

    def do_call(self, call: list) -> None:
        self.asked += 1
        method, params = call
        self.send(id=f"q{self.asked}", method=method, params=params)
        while "method" in (answer := self.lines.get()):
            pass
        with Path("outcomes").open("a") as file:
            file.write(json.dumps(answer.get("result", answer.get("error"))) + "\n")

    def do_run(self, line: str) -> None:
        self.asked += 1
        about = {"toolCallId": f"call-{self.asked}"}
        self.update({"sessionUpdate": "tool_call", **about, "title": line, "kind": "execute", "status": "pending"})
        self.update({"sessionUpdate": "tool_call_update", **about, "rawInput": {"command": line}})
        done = subprocess.run(
            ["/bin/sh", "-c", line], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        content = [{"type": "content", "content": {"type": "text", "text": done.stdout}}]
        status = "failed" if done.returncode else "completed"
        self.update({"sessionUpdate": "tool_call_update", **about, "status": status, "content": content})


if __name__ == "__main__":
    Peer().serve()
