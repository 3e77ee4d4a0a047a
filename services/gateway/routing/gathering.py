"""What all cells are asked.

Lists go cell by cell, by id, so that the end of a page is the end of one cell's own page.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from services.common.db.paging import Page
from services.common.errors import Invalid
from services.gateway.routing.peers import NO_ANSWER
from services.gateway.routing.wire import Rpc, count_items, page_request
from services.gateway.wire.requests import page_from_proto

Ask = Callable[[str, Any], Awaitable[Any]]
"""Asks one cell, by its id, with a request; raises one of NO_ANSWER when it does not answer."""


async def gather(rpc: Rpc, request: Any, cell_ids: Sequence[str], ask: Ask) -> Any:
    """Ask cells for as many items as fit on a page; merge their responses, and name the cells that did not answer.

    Raises what the first cell failed with when none answers, and Invalid for a page token of another list.
    """
    page = page_from_proto(request)
    first, token = _position(page)
    merged, room = rpc.response(), page.size
    unreachable, failure, next_page_token = [], None, ""
    remaining = [cell_id for cell_id in cell_ids if cell_id >= first]
    for index, cell_id in enumerate(remaining):
        try:
            answer = await ask(cell_id, page_request(request, room, token if cell_id == first else ""))
        except NO_ANSWER as error:
            unreachable.append(cell_id)
            failure = failure or error
            continue
        merged.MergeFrom(answer)
        room -= count_items(answer, rpc.items_of_cells)
        if answer.next_page_token:
            next_page_token = page.token_after((cell_id, answer.next_page_token))
            break
        if room <= 0 and index + 1 < len(remaining):
            next_page_token = page.token_after((remaining[index + 1], ""))
            break
    if failure is not None and len(unreachable) == len(remaining):
        raise failure
    return _completed(merged, unreachable, next_page_token)


async def ask_all(rpc: Rpc, request: Any, cell_ids: Sequence[str], ask: Ask) -> Any:
    """Ask all cells at once for what has no pages; merge their responses, and name the cells that did not answer.

    Raises what a cell refuses, and what the first one failed with when none answers.
    """
    answers = await asyncio.gather(*(ask(cell_id, request) for cell_id in cell_ids), return_exceptions=True)
    merged: Any = rpc.response()
    failures: list[BaseException] = []
    for cell_id, answer in zip(cell_ids, answers, strict=True):
        if isinstance(answer, NO_ANSWER):
            failures.append(answer)
            merged.unreachable_cell_ids.append(cell_id)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            merged.MergeFrom(answer)
    if len(failures) == len(cell_ids):
        raise failures[0]
    return merged


def _completed(merged: Any, unreachable: Sequence[str], next_page_token: str) -> Any:
    merged.unreachable_cell_ids.extend(unreachable)
    merged.next_page_token = next_page_token
    return merged


def _position(page: Page) -> tuple[str, str]:
    match page.after:
        case None:
            return "", ""
        case (str(cell_id), str(token)):
            return cell_id, token
        case _:
            raise Invalid([("page_token", "is not a token of this list")])
