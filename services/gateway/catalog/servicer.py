"""The RPCs of CatalogService: five for each type of resource, which differ in one row of a table; and MoveWorkItem."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from boatyard.gateway.v1 import catalog_pb2 as pb
from google.protobuf.message import Message
from grpc import aio

from services.agent.providers import ModelProvider
from services.common.errors import Invalid, NotFound
from services.gateway import scope
from services.gateway.catalog import update_wire, wire
from services.gateway.catalog.provider_trial import try_provider
from services.gateway.catalog.remotes import check_reach
from services.gateway.catalog.store import (
    PROJECTS,
    PROVIDERS,
    REPOSITORIES,
    TEMPLATES,
    WORK_ITEMS,
    WORKERS,
    CatalogStore,
    ResourceTable,
)
from services.gateway.schema.idempotency import IdempotencyKey
from services.gateway.values.catalog import CatalogFilter, Project, Provider, Repository, WorkItemState
from services.gateway.wire.requests import idempotency_key, page_from_proto
from services.lifecycle.webhooks import AllowList, url_complaint

PUBLIC: Final = AllowList()
EVERYWHERE: Final = AllowList.parse("0.0.0.0/0, ::/0", "BOATYARD_PROVIDER_ALLOW")
StartWorkItem = Callable[[str, IdempotencyKey | None], Awaitable[str]]
Context = aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _ResourceType:
    """How one type of resource is stored, read and written, and which of them a request lists."""

    plural: str
    table: ResourceTable[Any]
    form: update_wire.Form[Any]
    to_proto: Callable[[Any], Message]
    filter_from_proto: Callable[[Any], CatalogFilter]

    @property
    def id_field(self) -> str:
        return f"{self.form.field}_id"

    def answer(self, verb: str, resource: object) -> Message:
        """Return the response, with this resource, for an RPC on one resource."""
        return _message(f"{verb}{_camel_case(self.form.field)}Response", **{self.form.field: self.to_proto(resource)})


_RESOURCE_TYPES: Final = (
    _ResourceType("projects", PROJECTS, update_wire.PROJECT, wire.PROJECT.to_proto, lambda _: CatalogFilter()),
    _ResourceType(
        "repositories",
        REPOSITORIES,
        update_wire.REPOSITORY,
        wire.repository_to_proto,
        wire.list_repositories_from_proto,
    ),
    _ResourceType("providers", PROVIDERS, update_wire.PROVIDER, wire.provider_to_proto, wire.list_providers_from_proto),
    _ResourceType("templates", TEMPLATES, update_wire.TEMPLATE, wire.TEMPLATE.to_proto, wire.list_from_proto),
    _ResourceType("workers", WORKERS, update_wire.WORKER, wire.WORKER.to_proto, wire.list_from_proto),
    _ResourceType(
        "work_items", WORK_ITEMS, update_wire.WORK_ITEM, wire.WORK_ITEM.to_proto, wire.list_work_items_from_proto
    ),
)


class CatalogServicer:
    """Serves boatyard.gateway.v1.CatalogService."""

    def __init__(
        self,
        catalog: CatalogStore,
        start: StartWorkItem,
        providers_allowed: AllowList = PUBLIC,
        own_providers: Sequence[ModelProvider] = (),
    ) -> None:
        """`start` creates a job for a work item, and returns the job's id.

        `providers_allowed` is where providers of models may be, beside at public addresses; `own_providers` are this
        cell's own, which are not stored.
        """
        self._own_providers = own_providers
        self._catalog = catalog
        self._providers_allowed = providers_allowed
        self._start = start
        verbs = {"Create": self._create, "Get": self._get, "Update": self._update, "Delete": self._delete}
        for kind in _RESOURCE_TYPES:
            setattr(self, f"List{_camel_case(kind.plural)}", partial(self._list, kind))
            for verb, method in verbs.items():
                setattr(self, verb + _camel_case(kind.form.field), partial(method, kind))

    async def MoveWorkItem(self, request: pb.MoveWorkItemRequest, context: Context) -> pb.MoveWorkItemResponse:
        state = wire.target_state_from_proto(request.state)
        if state is WorkItemState.IN_PROGRESS:
            job_id = await self._start(request.work_item_id, idempotency_key(request))
            work_item = await self._catalog.get(WORK_ITEMS, request.work_item_id)
        else:
            job_id, work_item = "", await self._catalog.move(request.work_item_id, state)
        return pb.MoveWorkItemResponse(work_item=wire.WORK_ITEM.to_proto(work_item), job_id=job_id)

    async def SetProjectSecret(
        self, request: pb.SetProjectSecretRequest, context: Context
    ) -> pb.SetProjectSecretResponse:
        secret = {request.name: request.value}
        project = await self._change_secrets(request.project_id, lambda known: {**known, **secret})
        return pb.SetProjectSecretResponse(project=wire.PROJECT.to_proto(project))

    async def DeleteProjectSecret(
        self, request: pb.DeleteProjectSecretRequest, context: Context
    ) -> pb.DeleteProjectSecretResponse:
        project = await self._change_secrets(
            request.project_id, lambda known: {name: value for name, value in known.items() if name != request.name}
        )
        return pb.DeleteProjectSecretResponse(project=wire.PROJECT.to_proto(project))

    async def _change_secrets(
        self, project_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Project:
        return await self._catalog.update(
            PROJECTS, project_id, lambda project: wire.checked(replace(project, secrets=change(project.secrets)))
        )

    async def _create(self, kind: _ResourceType, request: Any, context: Context) -> Message:  # noqa: ANN401 - Create…
        if kind.table is PROJECTS:
            scope.check_all()
        resource = kind.form.from_proto(getattr(request, kind.form.field))
        self._check_url(resource)
        return kind.answer("Create", await self._catalog.create(kind.table, resource, idempotency_key(request)))

    async def _get(self, kind: _ResourceType, request: Any, context: Context) -> Message:  # noqa: ANN401 - Get…
        return kind.answer("Get", await self._catalog.get(kind.table, getattr(request, kind.id_field)))

    async def _list(self, kind: _ResourceType, request: Any, context: Context) -> Message:  # noqa: ANN401 - List…
        filters, page = kind.filter_from_proto(request), page_from_proto(request)
        resources, token = await self._catalog.page(kind.table, filters, page)
        shown = [*map(kind.to_proto, resources)]
        if kind.table is PROVIDERS and not token:
            shown += [wire.implied_to_proto(each) for each in await self._implied(filters.project_id)]
        found = {kind.plural: shown, "next_page_token": token}
        return _message(f"List{_camel_case(kind.plural)}Response", **found)

    async def _update(self, kind: _ResourceType, request: Any, context: Context) -> Message:  # noqa: ANN401 - Update…
        resource_id, change = kind.form.change_from_proto(request)

        def checked(before: Any) -> Any:  # noqa: ANN401 - of whichever type
            after = change(before)
            self._check_url(after, before)
            return after

        return kind.answer("Update", await self._catalog.update(kind.table, resource_id, checked))

    async def TestProvider(self, request: pb.TestProviderRequest, context: Context) -> pb.TestProviderResponse:
        try:
            provider = (await self._catalog.get(PROVIDERS, request.provider_id)).to_agent()
            allowed = self._providers_allowed
        except NotFound:
            own = [each for each in self._own_providers if each.name == request.provider_id]
            if not own:
                raise
            provider, allowed = own[0], EVERYWHERE  # whoever runs the machine has said where it is
        trial = await try_provider(provider, allowed)
        return pb.TestProviderResponse(succeeded=trial.succeeded, message=trial.message)

    async def _implied(self, project_id: str) -> list[ModelProvider]:
        """Return this cell's own providers, but those in whose place a project, or all, have a stored one."""
        implied = []
        for each in self._own_providers:
            try:
                stored = await self._catalog.get(PROVIDERS, each.name)
            except NotFound:
                implied.append(each)
            else:
                implied += [] if stored.project_id in {"", project_id} else [each]
        return implied

    def _check_url(self, after: object, before: Any = None) -> None:  # noqa: ANN401 - of its type
        """Check where a resource leads, if it did not lead there before. Raises PermissionDenied, Invalid."""
        match after:
            case Repository(url=url) if before is None or url != before.url:
                check_reach(url)
            case Provider(base_url=url) if before is None or url != before.base_url:
                if complaint := url_complaint(url, self._providers_allowed):
                    raise Invalid([("provider.base_url", complaint)])

    async def _delete(self, kind: _ResourceType, request: Any, context: Context) -> Message:  # noqa: ANN401 - Delete…
        await self._catalog.delete(kind.table, getattr(request, kind.id_field), datetime.now(UTC))
        return _message(f"Delete{_camel_case(kind.form.field)}Response")


def _camel_case(field: str) -> str:
    return "".join(map(str.capitalize, field.split("_")))


def _message(name: str, **fields: object) -> Message:
    message: Message = getattr(pb, name)(**fields)
    return message
