"""A coordinator in sixty lines: it claims jobs from a gateway, has a command do them, and reports back.

    BOATYARD_TOKEN=… python examples/coordinator.py unix:/srv/boatyard/run/gateway.sock ./do-the-job

(A gateway on another machine has TLS: then this needs grpc.secure_channel.)

The command gets the work context as JSON on its standard input: the job, its work item with notes, the repository with
its credential. What it prints is the job's log. Its last line gives the result, as fields of CompleteJobRequest:

    {"summary": "Mended the gate.", "pull_request_url": "https://…/pull/7", "pull_request_number": 7}
"""

import itertools
import json
import os
import subprocess
import sys
import threading
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # for the command, which is a child of this process

import grpc
from boatyard.execution.v1.event_pb2 import Event, OutputChunk
from boatyard.gateway.v1 import coordinator_pb2 as pb
from boatyard.gateway.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from google.protobuf.json_format import MessageToJson

ME = os.environ.get("COORDINATOR_ID", "example")  # the same at each start: its token is valid for this id
TOKEN = [("authorization", f"Bearer {os.environ['BOATYARD_TOKEN']}")]


def carry(gateway: Any, job: pb.ClaimedJob, command: list[str]) -> None:
    mine: dict[str, Any] = {"coordinator_id": ME, "lease": job.lease}
    context = gateway.GetWorkContext(pb.GetWorkContextRequest(**mine), timeout=10, metadata=TOKEN)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    ended, lost, cancelled = threading.Event(), threading.Event(), threading.Event()

    def keep_the_lease() -> None:
        while not ended.wait(job.lease_duration.ToTimedelta().total_seconds() / 3):
            request = pb.RenewLeaseRequest(coordinator_id=ME, leases=[job.lease])
            answer = gateway.RenewLease(request, timeout=5, wait_for_ready=True, metadata=TOKEN)
            if job.lease.job_id not in answer.held_job_ids:
                lost.set()
            if job.lease.job_id in answer.cancel_requested_job_ids:
                cancelled.set()
            if lost.is_set() or cancelled.is_set():
                process.terminate()

    threading.Thread(target=keep_the_lease, daemon=True).start()
    process.stdin.write(MessageToJson(context).encode())
    process.stdin.close()
    line = b"{}"
    for number, line in zip(itertools.count(1), process.stdout):
        event = Event(sequence=number, output=OutputChunk(stream=OutputChunk.STREAM_STDOUT, data=line))
        event.time.GetCurrentTime()
        log = pb.AppendEventsRequest(**mine, execution_id=job.execution_id, events=[event])
        gateway.AppendEvents(iter([log]), timeout=10, metadata=TOKEN)
    code = process.wait()
    ended.set()
    if lost.is_set():
        return  # somebody else has the job now
    if code == 0:
        gateway.CompleteJob(pb.CompleteJobRequest(**mine, **json.loads(line)), timeout=10, metadata=TOKEN)
    else:
        reason, message = "CANCELLED" if cancelled.is_set() else "AGENT_FAILED", f"the command ended with {code}"
        gateway.FailJob(pb.FailJobRequest(**mine, reason=reason, message=message), timeout=10, metadata=TOKEN)


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        gateway: Any = CoordinatorServiceStub(channel)  # type: ignore[arg-type] # its types are those of grpc.aio
        while True:  # a claim waits for a job for most of its deadline
            claim = pb.ClaimJobRequest(coordinator_id=ME)
            answer = gateway.ClaimJob(claim, timeout=60, wait_for_ready=True, metadata=TOKEN)
            if answer.HasField("job"):
                carry(gateway, answer.job, sys.argv[2:])


main()
