"""The requests for a job: with its own settings, or for a worker and a work item."""

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boatyard.agent.v1.agent_pb2 import AgentSettings
from boatyard.agent.v1.sandbox_pb2 import NETWORK_ALLOW_LIST
from boatyard.gateway.v1 import catalog_pb2, job_pb2, policy_pb2, runtime_pb2

from services.cli.clients import Gateway
from services.cli.fields import fill
from services.cli.flags import RUN_FLAGS, readers_of
from services.cli.parsing import duration

PROJECT = "default"

# scheme://… or user@host:path, as git reads them; everything else is a path on this machine.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:[^@/:]+@)?[^@/:]+:")


def repository_url(typed: str) -> str:
    """Return a URL unchanged, and a local path made absolute. As in git, a path with a colon begins with ./ or /."""
    return typed if _REMOTE.match(typed) else os.path.abspath(Path(typed).expanduser())  # noqa: PTH100 - "a/.." goes


async def find_or_create_repository(gateway: Gateway, url: str) -> str:
    """Return the id of the project's repository with this URL; concurrent callers get the same one."""
    listed = await gateway.ask(
        gateway.catalog.ListRepositories(catalog_pb2.ListRepositoriesRequest(project_id=PROJECT, url=url, page_size=1))
    )
    if listed.repositories:
        return listed.repositories[0].repository_id
    request = catalog_pb2.CreateRepositoryRequest(
        request_id="cli-" + hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:40],
        repository=catalog_pb2.Repository(project_id=PROJECT, url=url),
    )
    return (await gateway.ask(gateway.catalog.CreateRepository(request))).repository.repository_id


def new_job(prompt: str, values: Mapping[str, Any], request_id: str | None) -> job_pb2.CreateJobRequest:
    """Make the request for a job from the values of RUN_FLAGS; the gateway has defaults for those that were not given.

    Raises click.UsageError.
    """
    spec = job_pb2.JobSpec(project_id=PROJECT, prompt=prompt, agent=AgentSettings(), policy=policy_pb2.Policy())
    fill(spec, values, readers_of(RUN_FLAGS))
    if spec.agent.allowed_hosts:
        spec.agent.network = NETWORK_ALLOW_LIST
    return job_pb2.CreateJobRequest(request_id=request_id or uuid.uuid4().hex, spec=spec)


def execution_request(
    worker_id: str, work_item_id: str, prompt: str, timeout_seconds: float | None, request_id: str | None
) -> runtime_pb2.ExecuteRequest:
    """Make the request for a worker to work on a work item."""
    request = runtime_pb2.ExecuteRequest(
        request_id=request_id or uuid.uuid4().hex, worker_id=worker_id, work_item_id=work_item_id, prompt=prompt
    )
    if timeout_seconds is not None:
        request.timeout.CopyFrom(duration(timeout_seconds))
    return request
