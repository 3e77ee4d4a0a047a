"""From what people type to what the gateway is asked."""

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boatyard.execution.v1.execution_pb2 import CommandEngine
from boatyard.execution.v1.sandbox_pb2 import NETWORK_ALLOW_LIST
from boatyard.gateway.v1 import agent_pb2, catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.git.v1 import git_pb2

from services.cli import shapes
from services.cli.clients import Gateway
from services.cli.fields import fill
from services.cli.parsing import duration
from services.common.errors import NotFound

PROJECT = "default"

# scheme://… or user@host:path, as git reads them; everything else is a path on this machine.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:[^@/:]+@)?[^@/:]+:")


def repository_url(given: str) -> str:
    """Return a URL as it is, and a local path absolute. A path with a colon must begin with ./ or /, as for git."""
    return given if _REMOTE.match(given) else os.path.abspath(Path(given).expanduser())  # noqa: PTH100 - "a/.." goes


async def find_or_create_repository(gateway: Gateway, url: str) -> str:
    """Return the id of the project's repository with this URL; the same one for many that ask at once."""
    found = await gateway.ask(
        gateway.catalog.ListRepositories(catalog_pb2.ListRepositoriesRequest(project_id=PROJECT, url=url, page_size=1))
    )
    if found.repositories:
        return found.repositories[0].repository_id
    request = catalog_pb2.CreateRepositoryRequest(
        request_id="cli-" + hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:40],
        repository=catalog_pb2.Repository(project_id=PROJECT, url=url),
    )
    return (await gateway.ask(gateway.catalog.CreateRepository(request))).repository.repository_id


def new_job(
    *,
    prompt: str,
    repository_id: str,
    revision: str | None,
    snapshot_id: str | None,
    branch: str | None,
    engine: str | None,
    command: str | None,
    model: str | None,
    max_turns: int | None,
    verify: str | None,
    sandbox: str | None,
    timeout_s: float | None,
    push: bool,
    request_id: str | None,
    limits: Mapping[str, Any],
) -> job_pb2.CreateJobRequest:
    """Make the request for a job; what is None is left to the gateway's defaults."""
    agent = agent_pb2.AgentSettings(engine=engine, command=command, model=model, max_turns=max_turns)
    fill(agent, {"sandbox_tier": sandbox})
    if timeout_s is not None:
        agent.timeout.CopyFrom(duration(timeout_s))
    policy = agent_pb2.Policy(verify_command=verify)
    if not push:
        policy.publish = agent_pb2.Policy.PUBLISH_NONE
    spec = job_pb2.JobSpec(
        project_id=PROJECT,
        prompt=prompt,
        repository_id=repository_id,
        revision=os.fsencode(revision or ""),
        snapshot_id=snapshot_id or "",
        branch=os.fsencode(branch or ""),
        agent=agent,
        policy=policy,
    )
    fill(spec, limits)
    if spec.agent.allowed_hosts:
        spec.agent.network = NETWORK_ALLOW_LIST
    if spec.agent.terminal:  # its input is the terminal's
        spec.agent.prompt_delivery = CommandEngine.PROMPT_DELIVERY_ARGUMENT
    return job_pb2.CreateJobRequest(request_id=request_id or uuid.uuid4().hex, spec=spec)


def execution(
    *, worker_id: str, work_item_id: str, prompt: str, timeout_s: float | None, request_id: str | None
) -> runtime_pb2.ExecuteRequest:
    """Make the request to have a worker work on a work item."""
    request = runtime_pb2.ExecuteRequest(
        request_id=request_id or uuid.uuid4().hex, worker_id=worker_id, work_item_id=work_item_id, prompt=prompt
    )
    if timeout_s is not None:
        request.timeout.CopyFrom(duration(timeout_s))
    return request


async def get_job(gateway: Gateway, job_id: str) -> job_pb2.Job:
    """Return a job. Raises NotFound."""
    return (await gateway.ask(gateway.jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id)))).job


async def get_checkpoint(gateway: Gateway, id_: str) -> checkpoint_pb2.Checkpoint:
    """Return the checkpoint of this id, or the last one of the job of this id. Raises NotFound."""
    try:
        request = checkpoint_pb2.GetCheckpointRequest(checkpoint_id=id_)
        return (await gateway.ask(gateway.checkpoints.GetCheckpoint(request))).checkpoint
    except NotFound:
        pass
    wanted = checkpoint_pb2.ListCheckpointsRequest(job_id=id_, page_size=1)
    found = (await gateway.ask(gateway.checkpoints.ListCheckpoints(wanted))).checkpoints
    if not found:
        raise NotFound("checkpoint, or job that has asked anybody,", id_)
    return found[0]


async def get_snapshot(gateway: Gateway, snapshot_id: str) -> git_pb2.Snapshot:
    """Return a snapshot. Raises NotFound."""
    request = runtime_pb2.GetSnapshotRequest(snapshot_id=snapshot_id)
    return (await gateway.ask(gateway.runtime.GetSnapshot(request))).snapshot


async def get_execution(gateway: Gateway, execution_id: str) -> runtime_pb2.Execution:
    """Return an execution. Raises NotFound."""
    request = runtime_pb2.GetExecutionRequest(execution_id=execution_id)
    return (await gateway.ask(gateway.runtime.GetExecution(request))).execution


async def get_job_or_execution(gateway: Gateway, id_: str) -> job_pb2.Job | runtime_pb2.Execution:
    """Return what has this id. Raises NotFound."""
    try:
        return await get_job(gateway, id_)
    except NotFound:
        pass
    try:
        return await get_execution(gateway, id_)
    except NotFound:
        raise NotFound("job or execution", id_) from None


async def execution_id_of(gateway: Gateway, id_: str) -> str:
    """Return the execution that is meant: the one of this id, or the last attempt of the job of this id."""
    found = await get_job_or_execution(gateway, id_)
    if isinstance(found, runtime_pb2.Execution):
        return found.execution_id
    execution_id = shapes.last_execution(found)
    if execution_id is None:
        raise NotFound("execution of job", id_)
    return execution_id
