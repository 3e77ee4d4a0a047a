"""The request for a job: its repository and its project are looked up, and created if need be."""

import hashlib
import os
import re
import uuid
from pathlib import Path

import click
from boatyard.gateway.v1 import catalog_pb2, job_pb2

from services.cli.clients import Gateway
from services.cli.local_repository import top_of
from services.cli.lookup import get_snapshot
from services.common.errors import AlreadyExists, NotFound, ServiceError, Status
from services.common.rpc.sockets import is_socket

DEFAULT_PROJECT = "default"
"""The project that every gateway has."""

# scheme://… or user@host:path, as git reads them; everything else is a path on this machine.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:[^@/:]+@)?[^@/:]+:")


def repository_url(typed: str) -> str:
    """Return a URL unchanged, and a local path made absolute: that of the repository which it is in.

    As in git, a path with a colon begins with ./ or /. What is not on this machine may be on the cell's.
    """
    if is_url(typed):
        return typed
    path = Path(os.path.abspath(Path(typed).expanduser()))  # noqa: PTH100 - "a/.." goes
    return str(top_of(path) or path)


def is_url(typed: str) -> bool:
    """True for what names a server, and no path."""
    return _REMOTE.match(typed) is not None


def is_elsewhere(address: str) -> bool:
    """True when the gateway at an address is on another machine, whose files are not ours."""
    return not is_socket(address) and not address.startswith(("127.", "localhost:", "[::1]:"))


def check_there(url: str, address: str) -> None:
    """Raise UsageError for a path where this machine has no repository, if it is the gateway's machine too."""
    if is_url(url) or is_elsewhere(address) or top_of(Path(url)) is not None:
        return
    if Path(url).is_file():
        raise click.UsageError(f"--repo: {url} is a file, not a repository's directory")
    if _is_hidden(Path(url)):  # from us, not from the account that runs the cell
        return
    raise click.UsageError(f"--repo: there is no git repository at {url}, nor above it")


def _is_hidden(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK | os.X_OK)


_REFUSALS = {Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.FAILED_PRECONDITION, Status.PERMISSION_DENIED}
"""Answers after which there is no job; after others it is not known."""

_TRIES = 3
"""How often a repository is added that others, whose jobs are refused, remove meanwhile."""

_NAMED = {"worker_id": "Worker", "work_item_id": "WorkItem", "template_id": "Template", "repository_id": "Repository"}
"""The fields of a job by which its project is known, with the resource that each names: all are of one project."""


async def create_job(
    gateway: Gateway, spec: job_pb2.JobSpec, repository: str | None, request_id: str | None
) -> tuple[job_pb2.Job, str]:
    """Create a job for the repository with this URL, or else the one that it names, or that of its snapshot.

    Return it, and the id of the repository if that was added for it. A job that is refused leaves none.
    """
    if repository is None and spec.snapshot_id and not spec.repository_id:
        spec.repository_id = (await get_snapshot(gateway, spec.snapshot_id)).repository_id
    spec.project_id = spec.project_id or await _project_of(gateway, spec)
    request_id = request_id or uuid.uuid4().hex
    if repository is None:
        return await _submit(gateway, spec, request_id), ""
    tries_left = _TRIES
    while True:
        tries_left -= 1
        spec.repository_id, is_new = await _find_or_create_repository(gateway, spec.project_id, repository)
        added = spec.repository_id if is_new else ""
        try:
            return await _submit(gateway, spec, request_id), added
        except ServiceError as error:
            if added and error.status in _REFUSALS:
                await remove_repository(gateway, added)
            if not tries_left or error.reason != "REPOSITORY_NOT_FOUND":  # it went with another's job that was refused
                raise


async def _submit(gateway: Gateway, spec: job_pb2.JobSpec, request_id: str) -> job_pb2.Job:
    return (await gateway.ask(gateway.jobs.CreateJob(job_pb2.CreateJobRequest(request_id=request_id, spec=spec)))).job


async def remove_repository(gateway: Gateway, repository_id: str) -> bool:
    """Remove a repository that was added for one job; return False where that is not allowed, or others use it."""
    request = catalog_pb2.DeleteRepositoryRequest(repository_id=repository_id)
    try:
        await gateway.ask(gateway.catalog.DeleteRepository(request))
    except ServiceError:
        return False
    return True


async def _project_of(gateway: Gateway, spec: job_pb2.JobSpec) -> str:
    """Return the project of what the job names, or else the only one that our token is for, or `default`."""
    catalog = gateway.catalog
    for field, resource in _NAMED.items():
        if named := getattr(spec, field):
            request = getattr(catalog_pb2, f"Get{resource}Request")(**{field: named})
            answer = await gateway.ask(getattr(catalog, f"Get{resource}")(request))
            return str(getattr(answer, field.removesuffix("_id")).project_id)
    projects = (await gateway.ask(catalog.ListProjects(catalog_pb2.ListProjectsRequest(page_size=2)))).projects
    return projects[0].project_id if len(projects) == 1 else DEFAULT_PROJECT


async def _find_or_create_repository(gateway: Gateway, project_id: str, url: str) -> tuple[str, bool]:
    """Return the id of the project's repository with this URL, and whether it is new; concurrent callers share one."""
    query = catalog_pb2.ListRepositoriesRequest(project_id=project_id, url=url, page_size=1)
    repository = catalog_pb2.Repository(project_id=project_id, url=url)
    same_for_all = "cli-" + hashlib.sha256(f"{project_id} {url}".encode()).hexdigest()[:40]
    created = catalog_pb2.Repository()
    # What the first one makes may have been deleted, and so may what somebody else has just made.
    for request_id in (same_for_all, *(uuid.uuid4().hex for _ in range(_TRIES))):
        if listed := (await gateway.ask(gateway.catalog.ListRepositories(query))).repositories:
            return listed[0].repository_id, listed[0].repository_id == created.repository_id
        request = catalog_pb2.CreateRepositoryRequest(request_id=request_id, repository=repository)
        try:
            created = (await gateway.ask(gateway.catalog.CreateRepository(request))).repository
        except AlreadyExists as error:  # somebody else was faster
            if error.reason != "REPOSITORY_EXISTS":
                raise
    raise NotFound("repository", url, because="others keep adding and removing it: try again")
