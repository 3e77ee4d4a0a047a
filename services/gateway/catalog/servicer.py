"""The RPCs of CatalogService: they translate between messages and the catalogue's store."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from boatyard.gateway.v1 import catalog_pb2 as pb
from boatyard.gateway.v1.catalog_pb2_grpc import CatalogServiceServicer
from grpc import aio

from services.gateway import scope
from services.gateway.catalog import update_wire, wire
from services.gateway.catalog.store import PROJECTS, REPOSITORIES, TEMPLATES, WORK_ITEMS, WORKERS, CatalogStore
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.catalog import DEFAULT_PROJECT_ID, CatalogFilter, WorkItemState
from services.gateway.wire.validation import Validator

StartWorkItem = Callable[[str, IdempotencyKey | None], Awaitable[str]]
Context = aio.ServicerContext[Any, Any]


class CatalogServicer(CatalogServiceServicer):
    """Serves boatyard.gateway.v1.CatalogService."""

    def __init__(self, catalog: CatalogStore, start: StartWorkItem) -> None:
        """`start` creates a job for a work item, and returns the job's id."""
        self._catalog = catalog
        self._start = start

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Context) -> pb.CreateProjectResponse:
        scope.check_all()
        with Validator() as check:
            check.part(request, "project")
            project = wire.project_from_proto(check, request.project)
            key = check.idempotency_key(request, request.request_id)
        project = await self._catalog.create(PROJECTS, project, key)
        return pb.CreateProjectResponse(project=wire.project_to_proto(project))

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.GetProjectResponse:
        with Validator() as check:
            project_id = check.required_id("project_id", request.project_id)
        return pb.GetProjectResponse(project=wire.project_to_proto(await self._catalog.get(PROJECTS, project_id)))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        with Validator() as check:
            filters = CatalogFilter()
            page = check.page(request, request.page_size, request.page_token)
        projects, token = await self._catalog.page(PROJECTS, filters, page)
        return pb.ListProjectsResponse(projects=map(wire.project_to_proto, projects), next_page_token=token)

    async def UpdateProject(self, request: pb.UpdateProjectRequest, context: Context) -> pb.UpdateProjectResponse:
        with Validator() as check:
            project_id, change = update_wire.PROJECT.change_from_proto(check, request)
        project = await self._catalog.update(PROJECTS, project_id, change)
        return pb.UpdateProjectResponse(project=wire.project_to_proto(project))

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Context) -> pb.DeleteProjectResponse:
        with Validator() as check:
            project_id = check.required_id("project_id", request.project_id)
            if project_id == DEFAULT_PROJECT_ID:
                check.add("project_id", f"must not be `{DEFAULT_PROJECT_ID}`, which is always there")
        await self._catalog.delete(PROJECTS, project_id, datetime.now(UTC))
        return pb.DeleteProjectResponse()

    async def CreateRepository(
        self, request: pb.CreateRepositoryRequest, context: Context
    ) -> pb.CreateRepositoryResponse:
        with Validator() as check:
            check.part(request, "repository")
            repository = wire.repository_from_proto(check, request.repository)
            key = check.idempotency_key(request, request.request_id)
        repository = await self._catalog.create(REPOSITORIES, repository, key)
        return pb.CreateRepositoryResponse(repository=wire.repository_to_proto(repository))

    async def GetRepository(self, request: pb.GetRepositoryRequest, context: Context) -> pb.GetRepositoryResponse:
        with Validator() as check:
            repository_id = check.required_id("repository_id", request.repository_id)
        return pb.GetRepositoryResponse(
            repository=wire.repository_to_proto(await self._catalog.get(REPOSITORIES, repository_id))
        )

    async def ListRepositories(
        self, request: pb.ListRepositoriesRequest, context: Context
    ) -> pb.ListRepositoriesResponse:
        with Validator() as check:
            filters = wire.list_repositories_from_proto(check, request)
            page = check.page(request, request.page_size, request.page_token)
        repositories, token = await self._catalog.page(REPOSITORIES, filters, page)
        return pb.ListRepositoriesResponse(
            repositories=map(wire.repository_to_proto, repositories), next_page_token=token
        )

    async def UpdateRepository(
        self, request: pb.UpdateRepositoryRequest, context: Context
    ) -> pb.UpdateRepositoryResponse:
        with Validator() as check:
            repository_id, change = update_wire.REPOSITORY.change_from_proto(check, request)
        repository = await self._catalog.update(REPOSITORIES, repository_id, change)
        return pb.UpdateRepositoryResponse(repository=wire.repository_to_proto(repository))

    async def DeleteRepository(
        self, request: pb.DeleteRepositoryRequest, context: Context
    ) -> pb.DeleteRepositoryResponse:
        with Validator() as check:
            repository_id = check.required_id("repository_id", request.repository_id)
        await self._catalog.delete(REPOSITORIES, repository_id, datetime.now(UTC))
        return pb.DeleteRepositoryResponse()

    async def CreateTemplate(self, request: pb.CreateTemplateRequest, context: Context) -> pb.CreateTemplateResponse:
        with Validator() as check:
            check.part(request, "template")
            template = wire.template_from_proto(check, request.template)
            key = check.idempotency_key(request, request.request_id)
        template = await self._catalog.create(TEMPLATES, template, key)
        return pb.CreateTemplateResponse(template=wire.template_to_proto(template))

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: Context) -> pb.GetTemplateResponse:
        with Validator() as check:
            template_id = check.required_id("template_id", request.template_id)
        return pb.GetTemplateResponse(template=wire.template_to_proto(await self._catalog.get(TEMPLATES, template_id)))

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:
        with Validator() as check:
            filters = CatalogFilter(project_id=check.optional_id("project_id", request.project_id))
            page = check.page(request, request.page_size, request.page_token)
        templates, token = await self._catalog.page(TEMPLATES, filters, page)
        return pb.ListTemplatesResponse(templates=map(wire.template_to_proto, templates), next_page_token=token)

    async def UpdateTemplate(self, request: pb.UpdateTemplateRequest, context: Context) -> pb.UpdateTemplateResponse:
        with Validator() as check:
            template_id, change = update_wire.TEMPLATE.change_from_proto(check, request)
        template = await self._catalog.update(TEMPLATES, template_id, change)
        return pb.UpdateTemplateResponse(template=wire.template_to_proto(template))

    async def DeleteTemplate(self, request: pb.DeleteTemplateRequest, context: Context) -> pb.DeleteTemplateResponse:
        with Validator() as check:
            template_id = check.required_id("template_id", request.template_id)
        await self._catalog.delete(TEMPLATES, template_id, datetime.now(UTC))
        return pb.DeleteTemplateResponse()

    async def CreateWorker(self, request: pb.CreateWorkerRequest, context: Context) -> pb.CreateWorkerResponse:
        with Validator() as check:
            check.part(request, "worker")
            worker = wire.worker_from_proto(check, request.worker)
            key = check.idempotency_key(request, request.request_id)
        worker = await self._catalog.create(WORKERS, worker, key)
        return pb.CreateWorkerResponse(worker=wire.worker_to_proto(worker))

    async def GetWorker(self, request: pb.GetWorkerRequest, context: Context) -> pb.GetWorkerResponse:
        with Validator() as check:
            worker_id = check.required_id("worker_id", request.worker_id)
        return pb.GetWorkerResponse(worker=wire.worker_to_proto(await self._catalog.get(WORKERS, worker_id)))

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> pb.ListWorkersResponse:
        with Validator() as check:
            filters = CatalogFilter(project_id=check.optional_id("project_id", request.project_id))
            page = check.page(request, request.page_size, request.page_token)
        workers, token = await self._catalog.page(WORKERS, filters, page)
        return pb.ListWorkersResponse(workers=map(wire.worker_to_proto, workers), next_page_token=token)

    async def UpdateWorker(self, request: pb.UpdateWorkerRequest, context: Context) -> pb.UpdateWorkerResponse:
        with Validator() as check:
            worker_id, change = update_wire.WORKER.change_from_proto(check, request)
        worker = await self._catalog.update(WORKERS, worker_id, change)
        return pb.UpdateWorkerResponse(worker=wire.worker_to_proto(worker))

    async def DeleteWorker(self, request: pb.DeleteWorkerRequest, context: Context) -> pb.DeleteWorkerResponse:
        with Validator() as check:
            worker_id = check.required_id("worker_id", request.worker_id)
        await self._catalog.delete(WORKERS, worker_id, datetime.now(UTC))
        return pb.DeleteWorkerResponse()

    async def CreateWorkItem(self, request: pb.CreateWorkItemRequest, context: Context) -> pb.CreateWorkItemResponse:
        with Validator() as check:
            check.part(request, "work_item")
            work_item = wire.work_item_from_proto(check, request.work_item)
            key = check.idempotency_key(request, request.request_id)
        work_item = await self._catalog.create(WORK_ITEMS, work_item, key)
        return pb.CreateWorkItemResponse(work_item=wire.work_item_to_proto(work_item))

    async def GetWorkItem(self, request: pb.GetWorkItemRequest, context: Context) -> pb.GetWorkItemResponse:
        with Validator() as check:
            work_item_id = check.required_id("work_item_id", request.work_item_id)
        return pb.GetWorkItemResponse(
            work_item=wire.work_item_to_proto(await self._catalog.get(WORK_ITEMS, work_item_id))
        )

    async def ListWorkItems(self, request: pb.ListWorkItemsRequest, context: Context) -> pb.ListWorkItemsResponse:
        with Validator() as check:
            filters = wire.list_work_items_from_proto(check, request)
            page = check.page(request, request.page_size, request.page_token)
        work_items, token = await self._catalog.page(WORK_ITEMS, filters, page)
        return pb.ListWorkItemsResponse(work_items=map(wire.work_item_to_proto, work_items), next_page_token=token)

    async def UpdateWorkItem(self, request: pb.UpdateWorkItemRequest, context: Context) -> pb.UpdateWorkItemResponse:
        with Validator() as check:
            work_item_id, change = update_wire.WORK_ITEM.change_from_proto(check, request)
        work_item = await self._catalog.update(WORK_ITEMS, work_item_id, change)
        return pb.UpdateWorkItemResponse(work_item=wire.work_item_to_proto(work_item))

    async def DeleteWorkItem(self, request: pb.DeleteWorkItemRequest, context: Context) -> pb.DeleteWorkItemResponse:
        with Validator() as check:
            work_item_id = check.required_id("work_item_id", request.work_item_id)
        await self._catalog.delete(WORK_ITEMS, work_item_id, datetime.now(UTC))
        return pb.DeleteWorkItemResponse()

    async def MoveWorkItem(self, request: pb.MoveWorkItemRequest, context: Context) -> pb.MoveWorkItemResponse:
        with Validator() as check:
            work_item_id = check.required_id("work_item_id", request.work_item_id)
            state = wire.target_state_from_proto(check, request.state)
            key = check.idempotency_key(request, request.request_id)
        if state is WorkItemState.IN_PROGRESS:
            job_id = await self._start(work_item_id, key)
            work_item = await self._catalog.get(WORK_ITEMS, work_item_id)
        else:
            job_id, work_item = "", await self._catalog.move(work_item_id, state)
        return pb.MoveWorkItemResponse(work_item=wire.work_item_to_proto(work_item), job_id=job_id)
