"""Updates by mask: what a mask names is taken from a message, and the whole is then read as a new thing is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.gateway.catalog import wire
from services.gateway.values.catalog import Repository
from services.gateway.wire.validation import Validator

Resource = TypeVar("Resource")

_FIXED: Final = frozenset({"project_id", "create_time", "state", "has_token"})
_ENTERED: Final = frozenset({"agent", "policy"})


@dataclass(frozen=True, slots=True)
class Form(Generic[Resource]):
    """How a kind of thing stands in a request: in which field, and how it is written and read.

    What is `fixed` no path may name; of the messages that are `entered` it may name fields.
    """

    field: str
    write: Callable[[Resource], Message]
    read: Callable[[Validator, Any], Resource]
    fixed: frozenset[str] = _FIXED
    entered: frozenset[str] = _ENTERED

    def change(self, check: Validator, request: Any) -> tuple[str, Callable[[Resource], Resource]]:  # noqa: ANN401 - any Update…
        """Read an update: of which thing it is, and what it makes of the thing. The latter raises Invalid, too."""
        check.part(request, self.field)
        message = getattr(request, self.field)
        resource_id = check.required_id(f"{self.field}.{self.field}_id", getattr(message, f"{self.field}_id"))
        mask: FieldMask = request.update_mask
        if not mask.paths:
            check.add("update_mask", "is required")
        for path in mask.paths:
            if complaint := self._complaint(message, path):
                check.add("update_mask", complaint)

        def changed(resource: Resource) -> Resource:
            target = self.write(resource)
            for path in mask.paths:
                _take(path, message, target)
            with Validator() as inner:
                return self.read(inner, target)

        return resource_id, changed

    def _complaint(self, message: Message, path: str) -> str | None:
        outer, _, inner = path.partition(".")
        fields = message.DESCRIPTOR.fields_by_name
        if inner:
            parent = fields[outer].message_type if outer in fields and outer in self.entered else None
            known = parent is not None and inner in parent.fields_by_name
        else:
            known = outer in fields
        if not known:
            return f"{path[:255]!r} is no field of it"
        return f"{path!r} cannot be changed" if outer in {*self.fixed, f"{self.field}_id"} else None


def _take(path: str, source: Message, target: Message) -> None:
    """Make one field of `target` what it is in `source`: also not set, or empty."""
    outer, _, inner = path.partition(".")
    if inner:
        _take(inner, getattr(source, outer), getattr(target, outer))
        return
    only = type(source)()
    only.CopyFrom(source)
    for field in source.DESCRIPTOR.fields:
        if field.name != outer:
            only.ClearField(field.name)
    target.ClearField(outer)
    target.MergeFrom(only)


def _with_token(repository: Repository) -> Message:
    message = wire.repository_to_proto(repository)
    message.token = repository.token
    return message


PROJECT: Final = Form("project", wire.project_to_proto, wire.project_from_proto)
REPOSITORY: Final = Form("repository", _with_token, wire.repository_from_proto)
TEMPLATE: Final = Form("template", wire.template_to_proto, wire.template_from_proto)
WORKER: Final = Form("worker", wire.worker_to_proto, wire.worker_from_proto)
WORK_ITEM: Final = Form("work_item", wire.work_item_to_proto, wire.work_item_from_proto)
