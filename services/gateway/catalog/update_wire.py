"""Creations, and updates by mask: the named fields are copied into the resource's message, which is then checked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from boatyard.gateway.v1 import catalog_pb2 as pb
from google.protobuf.message import Message

from services.common.errors import Invalid
from services.common.rpc.rules import Check, Violation
from services.gateway.catalog import wire
from services.gateway.values.catalog import Provider, Repository
from services.gateway.wire.requests import page_checks

Resource = TypeVar("Resource")

_IMMUTABLE: Final = frozenset({"project_id", "create_time", "state", "has_token", "key_count", "is_implied"})
_NESTED: Final = frozenset({"agent", "policy", "floor"})


@dataclass(frozen=True, slots=True)
class Form(Generic[Resource]):
    """How a type of resource is created and updated: the requests' field that holds it, and its conversions.

    `check` finds what is wrong with its message as a whole. A path of a mask must not name an `immutable` field; it may
    name a field inside a `nested` message.
    """

    field: str
    to_proto: Callable[[Resource], Message]
    from_proto: Callable[[Any], Resource]
    check: Check = lambda _: ()
    immutable: frozenset[str] = _IMMUTABLE
    nested: frozenset[str] = _NESTED

    def checks(self, create: type[Message], update: type[Message]) -> Mapping[str, Check]:
        """Return the checks of the requests that create and update such a resource, by their full names."""
        return {
            create.DESCRIPTOR.full_name: lambda request: self._violations(getattr(request, self.field)),
            update.DESCRIPTOR.full_name: self._check_update,
        }

    def change_from_proto(self, request: Any) -> tuple[str, Callable[[Resource], Resource]]:  # noqa: ANN401 - any Update…
        """Read an update: the resource's id, and a function that applies the update, which raises Invalid.

        The named fields keep the rules by themselves; whether they fit the rest is seen when they are applied.
        """
        message = getattr(request, self.field)

        def apply(resource: Resource) -> Resource:
            target = self.to_proto(resource)
            for path in request.update_mask.paths:
                _copy_field(path, message, target)
            if violations := [*self._violations(target)]:
                raise Invalid(violations)
            return self.from_proto(target)

        return getattr(message, f"{self.field}_id"), apply

    def _violations(self, message: Message) -> Iterator[Violation]:
        yield from ((f"{self.field}.{path}", text) for path, text in self.check(message))

    def _check_update(self, request: Any) -> Iterator[Violation]:  # noqa: ANN401 - any Update…
        message = getattr(request, self.field)
        if not getattr(message, f"{self.field}_id"):
            yield f"{self.field}.{self.field}_id", "is required"
        if request.HasField("update_mask") and not request.update_mask.paths:
            yield "update_mask", "is required"
        for path in request.update_mask.paths:
            if complaint := self._complaint(message, path):
                yield "update_mask", complaint

    def _complaint(self, message: Message, path: str) -> str | None:
        outer, *inner = path.split(".")
        is_known = _leads_to_field(message.DESCRIPTOR, outer, *inner) and (not inner or outer in self.nested)
        if not is_known:
            return f"{path[:255]!r} is not a field of it"
        return f"{path!r} cannot be changed" if outer in {*self.immutable, f"{self.field}_id"} else None


def _leads_to_field(descriptor: Any, outer: str, *inner: str) -> bool:  # noqa: ANN401 - of whichever implementation
    """True for a field of a message, or of a message in it: not of a list's or a map's entries."""
    field = descriptor.fields_by_name.get(outer)
    if field is None or not inner:
        return field is not None
    message = field.message_type
    is_ours = message is not None and not field.is_repeated and not message.full_name.startswith("google.")
    return is_ours and _leads_to_field(message, *inner)


def _copy_field(path: str, source: Message, target: Message) -> None:
    """Copy one field from `source` to `target`, also when it is not set or empty."""
    outer, _, inner = path.partition(".")
    if inner:
        if source.HasField(outer) or target.HasField(outer):  # else nothing changes, nor does the case of a oneof
            _copy_field(inner, getattr(source, outer), getattr(target, outer))
        return
    # Merging a message with this field alone works for every type of field, and keeps whether it is set.
    single = type(source)()
    single.CopyFrom(source)
    for field in source.DESCRIPTOR.fields:
        if field.name != outer:
            single.ClearField(field.name)
    target.ClearField(outer)
    target.MergeFrom(single)


def _repository_with_token_to_proto(repository: Repository) -> Message:
    return wire.REPOSITORY.to_proto(repository, token=repository.token)


def _provider_with_keys_to_proto(provider: Provider) -> Message:
    return wire.PROVIDER.to_proto(provider, keys=provider.keys)


PROJECT: Final = Form("project", wire.PROJECT.to_proto, wire.project_from_proto, wire.check_project)
REPOSITORY: Final = Form(
    "repository", _repository_with_token_to_proto, wire.repository_from_proto, wire.check_repository
)
PROVIDER: Final = Form("provider", _provider_with_keys_to_proto, wire.provider_from_proto, wire.check_provider)
TEMPLATE: Final = Form("template", wire.TEMPLATE.to_proto, wire.template_from_proto)
WORKER: Final = Form("worker", wire.WORKER.to_proto, wire.worker_from_proto, wire.check_worker)
WORK_ITEM: Final = Form("work_item", wire.WORK_ITEM.to_proto, wire.work_item_from_proto, wire.check_work_item)

CHECKS: Final[Mapping[str, Check]] = {
    **PROJECT.checks(pb.CreateProjectRequest, pb.UpdateProjectRequest),
    **REPOSITORY.checks(pb.CreateRepositoryRequest, pb.UpdateRepositoryRequest),
    **PROVIDER.checks(pb.CreateProviderRequest, pb.UpdateProviderRequest),
    **TEMPLATE.checks(pb.CreateTemplateRequest, pb.UpdateTemplateRequest),
    **WORKER.checks(pb.CreateWorkerRequest, pb.UpdateWorkerRequest),
    **WORK_ITEM.checks(pb.CreateWorkItemRequest, pb.UpdateWorkItemRequest),
    pb.DeleteProjectRequest.DESCRIPTOR.full_name: wire.check_deleted_project,
    **page_checks(pb.DESCRIPTOR.services_by_name["CatalogService"]),
}
"""Rules for requests of the catalogue as a whole, by their full names."""
