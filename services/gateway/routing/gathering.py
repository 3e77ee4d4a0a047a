"""Lists of what all cells have: cell by cell, by id, so that a page's end is one cell's own page's end."""

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
    """What one cell has answered: how many things, and the token of its next page."""

    answer: Response
    count: int
    token: str


@dataclass(slots=True)
class PartialResult(Generic[Response]):
    """One page: what the cells have answered, by cell, and which did not."""

    answers: list[tuple[str, Response]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    next_page_token: str = ""


async def gather(
    router: CellRouter, page: Page, ask: Callable[[CellClient, int, str], Awaitable[CellPage[Response]]]
) -> PartialResult[Response]:
    """Ask cells for as many things as a page has room for. `ask` is given the cell, how many, and its own token.

    Raises what a cell's own services are away with when no cell answers at all, and Invalid for a foreign token.
    """
    cell_id, token = _position(page)
    cells = [(name, client) for name, client in await router.all_cells() if name >= cell_id]
    result: PartialResult[Response] = PartialResult()
    room, problem = page.size, None
    for number, (name, client) in enumerate(cells):
        try:
            part = None if client is None else await ask(client, room, token if name == cell_id else "")
        except CellUnreachable as away:
            part, problem = None, away
        except Unavailable as error:
            part, problem = None, CellUnreachable(error)
        if part is None:
            result.unreachable.append(name)
            continue
        result.answers.append((name, part.answer))
        room -= part.count
        if part.token:
            result.next_page_token = page.token_after((name, part.token))
            break
        if room <= 0 and number + 1 < len(cells):
            result.next_page_token = page.token_after((cells[number + 1][0], ""))
            break
    if problem is not None and not result.answers:
        raise problem
    return result


def _position(page: Page) -> tuple[str, str]:
    match page.after:
        case None:
            return "", ""
        case (str(cell_id), str(token)):
            return cell_id, token
        case _:
            raise Invalid([("page_token", "is not a token of this list")])
