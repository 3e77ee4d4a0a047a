"""Every row of docs/from-older-systems.md, run as a person runs it: by `buf curl`, which is grpcurl, or by `boatyard`.

A module of tests has a `Rows` for a section of the page, with a function for each row. With `pytest -s` all that is
asked and answered is printed.
"""

import base64
import functools
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo

from tests.kit.cell import Cell
from tests.kit.contract import ROOT
from tests.kit.repos import Repo

PAGE = ROOT / "docs" / "from-older-systems.md"
BUF = Path(sys.executable).parent / "buf"
ENDED = ("STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED")


def sections() -> dict[str, list[str]]:
    """Return the first cells of each table's rows, by the heading above it; "" is the table before all headings."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| theirs", "| HTTP")):
            found.setdefault(heading, []).append(line.split(" | ")[0].removeprefix("| "))
    return found


def printed(*words: object) -> None:
    print(*words, flush=True)  # what `pytest -s` is for


def _snake(value: Any) -> Any:
    """Return an answer of JSON with the contract's own names of fields."""
    if isinstance(value, dict):
        return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): _snake(each) for key, each in value.items()}
    return [_snake(each) for each in value] if isinstance(value, list) else value


class Refused(Exception):
    """A call that ended with a status: its `code`, `reason`, `metadata`, `message` and `request_id`."""

    def __init__(self, error: dict[str, Any]) -> None:
        info, request = ErrorInfo(), RequestInfo()
        for detail in error.get("details", []):
            for message in (info, request):
                if detail["type"] == message.DESCRIPTOR.full_name:
                    message.ParseFromString(base64.b64decode(detail["value"] + "=="))
        self.code = error["code"]
        self.reason = info.reason
        self.metadata = dict(info.metadata)
        self.message = error["message"]
        self.request_id = request.request_id
        super().__init__(f"{self.code} {self.reason}: {self.message}")


class House:
    """A running cell, and what somebody who moves over to it has there."""

    def __init__(self, cell: Cell, remote: Repo) -> None:
        self.cell = cell
        self.remote = remote
        self.ran: set[Run] = set()
        self.token = (cell.home / "token").read_text().strip()
        self.repository_id = str(self.cli("repository", "create", "--url", remote.path)[0]["repository_id"])

    def curl(self, rpc: str, *, token: str | None = None, seconds: float = 20, **request: object) -> list[str]:
        """Return the command that calls "JobService.GetJob" of a gateway, or "GitService.Push" of a node."""
        service, method = rpc.split(".")
        url, more = f"http://{self.cell.address('gateway')}/boatyard.gateway.v1.{service}/{method}", []
        if service == "GitService":
            url = f"http://localhost/boatyard.git.v1.{service}/{method}"
            more = ["--unix-socket", str(self.cell.home / "run" / "git.sock")]
            token = (self.cell.home / "cell-token").read_text().strip()
        token = self.token if token is None else token
        headers = ["-H", f"authorization: Bearer {token}"] if token else []
        transport = ["--protocol", "grpc", "--http2-prior-knowledge", "--timeout", f"{seconds}s"]
        return [str(BUF), "curl", *transport, *more, *headers, "-d", json.dumps(request), url]

    def calls(self, rpc: str, *, token: str | None = None, seconds: float = 20, **request: object) -> list[dict]:
        """Call an RPC; return its answers. Raise Refused for a status other than OK."""
        command = self.curl(rpc, token=token, seconds=seconds, **request)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 20)
        printed(f"$ grpcurl -d '{json.dumps(request)}' {rpc}")
        printed((done.stdout + done.stderr).rstrip())
        if done.returncode:
            raise Refused(json.loads(done.stderr))
        return answers_of(done.stdout)

    def first(self, rpc: str, **request: object) -> dict[str, Any]:
        """Return the first message of a stream that does not end by itself."""
        with subprocess.Popen(self.curl(rpc, **request), stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout
            text = ""
            for line in watching.stdout:
                text += line
                if line == "}\n":
                    break
            watching.terminate()
        printed(f"$ grpcurl -d '{json.dumps(request)}' {rpc}\n{text}")
        return answers_of(text)[0]

    def is_up(self) -> bool:
        """True when the gateway answers."""
        command = self.curl("AdminService.GetStatus", seconds=2)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def call(self, rpc: str, *, token: str | None = None, seconds: float = 20, **request: object) -> dict[str, Any]:
        """Call an RPC that has one answer; return it."""
        (answer,) = self.calls(rpc, token=token, seconds=seconds, **request)
        return answer

    def refused(self, rpc: str, *, token: str | None = None, **request: object) -> Refused:
        """Call an RPC that must be refused; return how."""
        try:
            self.calls(rpc, token=token, **request)
        except Refused as refused:
            return refused
        raise AssertionError(f"{rpc} answers {request}")

    def cli(self, *arguments: object, code: int | None = 0) -> list[dict[str, Any]]:
        """Run a command of `boatyard`; return what it prints as JSON."""
        lines = self.cell.lines(*arguments, code=code)
        printed("$ boatyard", *arguments)
        for line in lines:
            printed(json.dumps(line))
        return lines

    def http(self, path: str) -> str:
        """Return what the gateway answers to a viewer's GET."""
        headers = {"authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"http://{self.cell.address('http')}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def worker(self, line: str, *arguments: object) -> str:
        """Make a worker that runs a command line; return its id."""
        return str(self.cli("worker", "create", "--command", line, *arguments)[0]["worker_id"])

    def item(self, *arguments: object) -> str:
        """Make a work item on the repository; return its id."""
        made = self.cli("item", "create", "--title", "A ticket", "--repository", self.repository_id, *arguments)
        return str(made[0]["work_item_id"])

    def submit(self, line: str, **spec: object) -> str:
        """Create a job that runs a command line on the repository; return its id."""
        agent = {"command": {"line": line}}
        spec = {"prompt": "Do it.", "repository_id": self.repository_id, "agent": agent, **spec}
        return str(self.call("JobService.CreateJob", spec=spec)["job"]["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.call("JobService.GetJob", job_id=job_id)["job"])

    def until(self, job_id: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Watch a job until it is as it should be, or has ended; return it."""
        command = self.curl("JobService.WatchJob", seconds=60, job_id=job_id)
        printed(f"$ grpcurl -d '{json.dumps({'job_id': job_id})}' JobService.WatchJob")
        job: dict[str, Any] = {}
        text = ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout
            for line in watching.stdout:
                text += line
                if line == "}\n":
                    (answer,), text = answers_of(text), ""
                    job = answer["job"]
                    printed(job_id, job["state"])
                    if condition(job) or job["state"] in ENDED:
                        break
            watching.terminate()
        assert job, f"no answer about {job_id}"
        return job

    def until_at(self, job_id: str, stage: str) -> dict[str, Any]:
        """Watch a job until a stage of it has begun; return it."""
        job = self.until(job_id, lambda now: any(each["name"] == stage for each in now.get("timeline", [])))
        assert job["state"] not in ENDED, job
        return job

    def ended(self, job_id: str) -> dict[str, Any]:
        """Watch a job until it has ended; return it."""
        job = self.until(job_id, lambda job: False)
        assert job["state"] in ENDED, job
        return job

    @functools.cached_property
    def left(self) -> dict[str, Any]:
        """A job of a worker and a work item that has failed and left a workspace with a new file: one for all rows."""
        (template,) = self.cli("template", "create", "--command", "echo new > new.txt; exit 3")
        (worker,) = self.cli("worker", "create", "--template", template["template_id"])
        asked = self.call(
            "AgentRuntimeService.Execute", worker_id=worker["worker_id"], work_item_id=self.item(), prompt="Do it."
        )
        job = self.ended(asked["job_id"])
        assert (job["state"], job["reason"]) == ("STATE_FAILED", "AGENT_FAILED")
        return job

    @functools.cached_property
    def done(self) -> dict[str, Any]:
        """An execution of a worker and a work item that has succeeded, changed a file and been checked: one for all."""
        worker = self.worker("echo new > new.txt; echo all is said", "--verify", "test -e new.txt")
        asked = self.call("AgentRuntimeService.Execute", worker_id=worker, work_item_id=self.item(), prompt="Do it.")
        self.ended(asked["job_id"])
        return self.execution(asked["execution_id"])

    def run(self, line: str, **spec: Any) -> dict[str, Any]:
        return self.ended(self.submit(line, **spec))

    def execution(self, execution_id: str) -> dict[str, Any]:
        return dict(self.call("AgentRuntimeService.GetExecution", execution_id=execution_id)["execution"])


def data_of(messages: list[dict[str, Any]]) -> bytes:
    """Return the bytes that messages with a field `data` hold together."""
    return b"".join(base64.b64decode(message.get("data", "")) for message in messages)


def answers_of(text: str) -> list[dict]:
    """Return the messages that `buf curl` has printed, one after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        answer, at = decoder.raw_decode(text, at)
        found.append(_snake(answer))
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


Run = Callable[[House], None]


class Rows:
    """The rows of a section, each with the function that runs it."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.of_page = sections()[section]
        self.functions: dict[str, Run] = {}

    def row(self, *first_cells: str) -> Callable[[Run], Run]:
        """Register a function for the rows that begin with these cells."""

        def register(function: Run) -> Run:
            for cell in first_cells:
                assert cell in self.of_page, f"{PAGE.name} has no row {cell}"
                self.functions[cell] = function
            return function

        return register

    def run(self, row: str, house: House) -> None:
        assert row in self.functions, f"a row of {PAGE.name} that no test runs: {row}"
        printed(f"\n### {self.section}: {row}")
        if (function := self.functions[row]) not in house.ran:  # one that runs several rows runs them once
            function(house)
            house.ran.add(function)
