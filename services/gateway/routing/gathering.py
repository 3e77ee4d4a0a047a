"""Lists over all cells: cell by cell, by id, so that the end of a page is the end of one cell's own page."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.common.db.paging import Page
from services.common.errors import Invalid, Unavailable
from services.gateway.routing.cell_client import CellClient, CellUnreachable
from services.gateway.routing.router import CellRouter

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class CellPage(Generic[Response]):
    """The answer of one cell, how many resources it has, and the token of the cell's next page."""

    answer: Response
    count: int
    token: str


@dataclass(slots=True)
class PartialResult(Generic[Response]):
    """One page: the answers by cell id, and the ids of the cells that did not answer."""

    answers: list[tuple[str, Response]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    next_page_token: str = ""


async def gather(
    router: CellRouter, page: Page, ask: Callable[[CellClient, int, str], Awaitable[CellPage[Response]]]
) -> PartialResult[Response]:
    """Ask cells for as many resources as fit on a page. `ask` gets the cell, the number, and the cell's own token.

    Raises CellUnreachable when a call fails and no cell answers, and Invalid for a page token of another list.
    """
    cell_id, token = _position(page)
    cells = [(name, client) for name, client in await router.all_cells() if name >= cell_id]
    result: PartialResult[Response] = PartialResult()
    room, failure = page.size, None
    for index, (name, client) in enumerate(cells):
        try:
            part = None if client is None else await ask(client, room, token if name == cell_id else "")
        except CellUnreachable as unreachable:
            part, failure = None, unreachable
        except Unavailable as error:
            part, failure = None, CellUnreachable(error)
        if part is None:
            result.unreachable.append(name)
            continue
        result.answers.append((name, part.answer))
        room -= part.count
        if part.token:
            result.next_page_token = page.token_after((name, part.token))
            break
        if room <= 0 and index + 1 < len(cells):
            result.next_page_token = page.token_after((cells[index + 1][0], ""))
            break
    if failure is not None and not result.answers:
        raise failure
    return result


def _position(page: Page) -> tuple[str, str]:
    match page.after:
        case None:
            return "", ""
        case (str(cell_id), str(token)):
            return cell_id, token
        case _:
            raise Invalid([("page_token", "is not a token of this list")])
