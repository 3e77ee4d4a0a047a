"""Updates by mask: the named fields are copied into the resource's message, which is then validated as a whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.gateway.catalog import wire
from services.gateway.values.catalog import Repository
from services.gateway.wire.validation import Validator

Resource = TypeVar("Resource")

_IMMUTABLE: Final = frozenset({"project_id", "create_time", "state", "has_token"})
_NESTED: Final = frozenset({"agent", "policy"})


@dataclass(frozen=True, slots=True)
class Form(Generic[Resource]):
    """How a type of resource is updated: the request's field that holds it, and its conversion to and from a message.

    A path must not name an `immutable` field; it may name a field inside a `nested` message.
    """

    field: str
    to_proto: Callable[[Resource], Message]
    from_proto: Callable[[Validator, Any], Resource]
    immutable: frozenset[str] = _IMMUTABLE
    nested: frozenset[str] = _NESTED

    def change_from_proto(self, check: Validator, request: Any) -> tuple[str, Callable[[Resource], Resource]]:  # noqa: ANN401 - any Update…
        """Read an update: the resource's id, and a function that applies the update, which may raise Invalid, too."""
        check.part(request, self.field)
        message = getattr(request, self.field)
        resource_id = check.required_id(f"{self.field}.{self.field}_id", getattr(message, f"{self.field}_id"))
        mask: FieldMask = request.update_mask
        if not mask.paths:
            check.add("update_mask", "is required")
        for path in mask.paths:
            if complaint := self._complaint(message, path):
                check.add("update_mask", complaint)

        def apply(resource: Resource) -> Resource:
            target = self.to_proto(resource)
            for path in mask.paths:
                _copy_field(path, message, target)
            with Validator() as result_check:
                return self.from_proto(result_check, target)

        return resource_id, apply

    def _complaint(self, message: Message, path: str) -> str | None:
        outer, *inner = path.split(".")
        is_known = _leads_to_field(message.DESCRIPTOR, path) and (not inner or outer in self.nested)
        if not is_known:
            return f"{path[:255]!r} is not a field of it"
        return f"{path!r} cannot be changed" if outer in {*self.immutable, f"{self.field}_id"} else None


def _leads_to_field(descriptor: Any, path: str) -> bool:  # noqa: ANN401 - of whichever implementation
    outer, _, inner = path.partition(".")
    field = descriptor.fields_by_name.get(outer)
    if field is None or not inner:
        return field is not None
    of_ours = field.message_type is not None and not field.message_type.full_name.startswith("google.")
    return of_ours and _leads_to_field(field.message_type, inner)


def _copy_field(path: str, source: Message, target: Message) -> None:
    """Copy one field from `source` to `target`, also when it is not set or empty."""
    outer, _, inner = path.partition(".")
    if inner:
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


PROJECT: Final = Form("project", wire.PROJECT.to_proto, wire.project_from_proto)
REPOSITORY: Final = Form("repository", _repository_with_token_to_proto, wire.repository_from_proto)
TEMPLATE: Final = Form("template", wire.TEMPLATE.to_proto, wire.template_from_proto)
WORKER: Final = Form("worker", wire.WORKER.to_proto, wire.worker_from_proto)
WORK_ITEM: Final = Form("work_item", wire.WORK_ITEM.to_proto, wire.work_item_from_proto)
