"""What many requests of the gateway have: a request id, and the page of a list."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.common.rpc.rules import Check, Violation
from services.common.rpc.secrecy import without_secrets
from services.gateway import scope
from services.gateway.schema.idempotency import IdempotencyKey


def idempotency_key(request: Any) -> IdempotencyKey | None:  # noqa: ANN401 - any message with a request_id
    """Return a call's request id, with a digest that tells its message from others; None without an id."""
    if not request.request_id:
        return None
    # The same message from a caller who sees other projects may mean another project. Secrets count by their names: a
    # short one could be guessed from the digest.
    content = (
        without_secrets(request).SerializeToString(deterministic=True) + repr(sorted(scope.visible() or ())).encode()
    )
    return IdempotencyKey(request.request_id, request.DESCRIPTOR.full_name, hashlib.sha256(content).digest())


def page_from_proto(request: Any) -> Page:  # noqa: ANN401 - any List…Request
    """Return which page is asked for. Its token is bound to all other fields of the request, which are the filter."""
    unpaged: Message = type(request)()
    unpaged.CopyFrom(request)
    unpaged.ClearField("page_size")
    unpaged.ClearField("page_token")
    filters = {request.DESCRIPTOR.full_name: unpaged.SerializeToString(deterministic=True)}
    return Page.parse(request.page_size, request.page_token, filters)


def page_checks(service: ServiceDescriptor) -> Mapping[str, Check]:
    """Return the checks of the page tokens of a service's lists, by the requests' full names."""
    requests = (method.input_type for method in service.methods)
    return {request.full_name: check_page_token for request in requests if "page_token" in request.fields_by_name}


def check_page_token(request: Any) -> Iterator[Violation]:  # noqa: ANN401 - any List…Request
    """Yield what is wrong with the page token of a request."""
    try:
        page_from_proto(request)
    except Invalid as error:
        yield from (violation for violation in error.violations if violation[0] == "page_token")
