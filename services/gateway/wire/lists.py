"""Pages of lists, in responses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from google.protobuf.message import Message

from services.common.db.paging import Key, Page

_LIST_BYTES: Final = 2 << 20  # of a message's 4 MiB

View = TypeVar("View")
Written = TypeVar("Written", bound=Message)


def fitted(
    views: Sequence[View], page: Page, write: Callable[[View], Written], key: Callable[[View], Key]
) -> tuple[list[Written], str]:
    """Write a page of a list and its next token; the page is shorter when it would not fit into one response."""
    messages: list[Written] = []
    size = 0
    for view in views[: page.size]:
        messages.append(write(view))
        size += messages[-1].ByteSize()
        if size > _LIST_BYTES:
            break
    _, token = replace(page, size=max(1, len(messages))).cut(views, key)
    return messages, token
