"""Hooks of a test's own project, and the outcomes of their calls."""

import signal
from dataclasses import dataclass

from boatyard.gateway.v1 import catalog_pb2, hook_pb2, job_pb2

from services.common.ids import new_id
from tests.kit.receiver import SECRET
from tests.kit.repos import Repo
from tests.kit.services import Services

DONE, BROKEN = job_pb2.StageRecord.STATE_DONE, job_pb2.StageRecord.STATE_FAILED
IGNORE, FAIL = hook_pb2.Hook.FAILURE_POLICY_IGNORE, hook_pb2.Hook.FAILURE_POLICY_FAIL


@dataclass(frozen=True)
class Hooks:
    """Registers hooks of one project."""

    services: Services
    project: str

    @classmethod
    async def of_new_project(cls, services: Services) -> "Hooks":
        request = catalog_pb2.CreateProjectRequest(project=catalog_pb2.Project(project_id=new_id("project")))
        return cls(services, (await services.catalog.CreateProject(request)).project.project_id)

    async def __call__(self, event: str, **fields) -> hook_pb2.Hook:
        project = {} if fields.get("all_projects") else {"project_id": self.project}
        hook = hook_pb2.Hook(event=f"EVENT_{event}", **project, **fields)
        return (await self.services.hooks.CreateHook(hook_pb2.CreateHookRequest(hook=hook))).hook

    async def web(self, event: str, url: str, **fields) -> hook_pb2.Hook:
        return await self(event, webhook={"url": url, "secret": SECRET}, **fields)

    async def spec(self, remote: Repo) -> dict[str, str]:
        """Return the fields of a job's spec for a new repository of the project."""
        repository = catalog_pb2.Repository(project_id=self.project, url=str(remote.path))
        answer = await self.services.catalog.CreateRepository(
            catalog_pb2.CreateRepositoryRequest(repository=repository)
        )
        return {"project_id": self.project, "repository_id": answer.repository.repository_id}


def hook_calls(job: job_pb2.Job) -> dict[str, tuple[int, str]]:
    """Return {stage name: (state, message)} of the calls of hooks in a job's timeline."""
    return {stage.name: (stage.state, stage.message) for stage in job.timeline if "-hook-" in stage.name}


async def killed_in_mid_call(services: Services) -> None:
    services.end("gateway", signal.SIGKILL)
    services.start("gateway")
    await services.serving("gateway")
