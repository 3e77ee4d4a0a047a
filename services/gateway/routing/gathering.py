"""Lists of what all cells have: cell by cell, by id, so that a page's end is one cell's own page's end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.common.db.paging import Page
from services.common.errors import Invalid, Unavailable
from services.gateway.routing.cell_client import NodeAway, Place
from services.gateway.routing.router import Places

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Part(Generic[Answer]):
    """What one cell has answered: how many things, and the token of its next page."""

    answer: Answer
    count: int
    token: str


@dataclass(slots=True)
class Gathered(Generic[Answer]):
    """One page: what the cells have answered, by cell, and which did not."""

    answers: list[tuple[str, Answer]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    next_page_token: str = ""


async def gather(
    places: Places, page: Page, ask: Callable[[Place, int, str], Awaitable[Part[Answer]]]
) -> Gathered[Answer]:
    """Ask cells for as many things as a page has room for. `ask` is given the cell, how many, and its own token.

    Raises what a cell's own services are away with when no cell answers at all, and Invalid for a foreign token.
    """
    cell_id, token = _position(page)
    everywhere = [(name, place) for name, place in await places.everywhere() if name >= cell_id]
    gathered: Gathered[Answer] = Gathered()
    room, problem = page.size, None
    for number, (name, place) in enumerate(everywhere):
        try:
            part = None if place is None else await ask(place, room, token if name == cell_id else "")
        except NodeAway as away:
            part, problem = None, away
        except Unavailable as error:
            part, problem = None, NodeAway(error)
        if part is None:
            gathered.unreachable.append(name)
            continue
        gathered.answers.append((name, part.answer))
        room -= part.count
        if part.token:
            gathered.next_page_token = page.token_after((name, part.token))
            break
        if room <= 0 and number + 1 < len(everywhere):
            gathered.next_page_token = page.token_after((everywhere[number + 1][0], ""))
            break
    if problem is not None and not gathered.answers:
        raise problem
    return gathered


def _position(page: Page) -> tuple[str, str]:
    match page.after:
        case None:
            return "", ""
        case (str(cell_id), str(token)):
            return cell_id, token
        case _:
            raise Invalid([("page_token", "is not a token of this list")])
