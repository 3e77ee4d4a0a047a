"""Reads from the contract where an RPC is served, and handles requests and responses of any type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from boatyard.gateway.v1 import routing_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.common.errors import Unavailable

ListRequest = TypeVar("ListRequest", bound=Message)

_PAGE_FIELDS: Final = ("page_size", "page_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """What routing needs to know of an RPC: see the options in `routing.proto`."""

    name: str
    path: str
    response: type[Message]
    request_streaming: bool
    response_streaming: bool
    changes_something: bool
    cell_of: tuple[str, ...]
    items_of_cells: str
    has_pages: bool
    resumption: routing_pb2.Resumption | None

    def with_position(self, error: Unavailable, request: Any, last_response: Any) -> Unavailable:
        """Return the error that cuts a stream, with the position to resume from, if the stream can be resumed.

        The last response, None if there was none, may be serialized.
        """
        if self.resumption is None:
            return error
        if last_response is None:
            return error.at(getattr(request, self.resumption.request_field, 0))
        if isinstance(last_response, bytes):
            last_response = self.response.FromString(last_response)
        return error.at(getattr(last_response, self.resumption.response_field))


def rpcs_of(service: ServiceDescriptor) -> Sequence[Rpc]:
    """Return what the contract says about the RPCs of a service."""
    return [_rpc(method) for method in service.methods]


def page_request(request: ListRequest, size: int, token: str) -> ListRequest:
    """Return the same request for another page."""
    others = {field.name: value for field, value in request.ListFields() if field.name not in _PAGE_FIELDS}
    return type(request)(**others, page_size=size, page_token=token)


def count_items(message: Any, path: str) -> int:
    """Count the items at a path such as `cells.workspaces`."""
    name, _, rest = path.partition(".")
    parts = getattr(message, name)
    return sum(count_items(part, rest) for part in parts) if rest else len(parts)


def _rpc(method: MethodDescriptor) -> Rpc:
    options = method.GetOptions()
    resumption = options.Extensions[routing_pb2.resumption]
    return Rpc(
        name=method.name,
        path=f"/{method.containing_service.full_name}/{method.name}",
        response=GetMessageClass(method.output_type),
        request_streaming=method.client_streaming,
        response_streaming=method.server_streaming,
        changes_something=options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS,
        cell_of=tuple(options.Extensions[routing_pb2.cell_of]),
        items_of_cells=options.Extensions[routing_pb2.items_of_cells],
        has_pages="page_token" in method.input_type.fields_by_name,
        resumption=resumption if options.HasExtension(routing_pb2.resumption) else None,
    )
