"""Which images containers may have: admission knows it where there is one cell, and else leaves it to the nodes."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from services.agent.images import ContainerImages
from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition
from services.gateway.catalog.store import REPOSITORIES, CatalogStore
from services.gateway.cells.own import OwnCell
from services.gateway.cells.store import CellStore
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.submission import JobSubmission
from services.gateway.values.catalog import Repository
from services.gateway.values.cells import Cell
from services.lifecycle.model.condition import Condition
from services.lifecycle.model.states import JobState
from services.lifecycle.nodes import Nodes
from services.sandbox.spec import Tier
from tests.kit.ledger import Books

NO_NODES = cast("Nodes", None)  # none is asked: these jobs have no repository
CELL = Cell(cell_id="cell", host="h", version="1", capacity=1, address="", peer_token="")
SOME = ContainerImages("agents:1", ("tools/*", "registry.example:5000/team/?:2"))
NONE = ContainerImages()
# The images of a cell, that of a job, and words of the refusal; empty where it is admitted.
IMAGES = {
    "the default": (SOME, None, ""),
    "the default by its name": (SOME, "agents:1", ""),
    "by a pattern": (SOME, "tools/python:3", ""),
    "by a pattern with one character": (SOME, "registry.example:5000/team/a:2", ""),
    "none of them": (SOME, "agents:2", "'agents:2' is not among those that may be used here"),
    "no default": (NONE, None, "there is no default here (BOATYARD_EXECUTION_CONTAINER_IMAGE)"),
    "none at all": (NONE, "agents:1", "BOATYARD_EXECUTION_CONTAINER_IMAGES"),
    "not told": (None, "agents:1", ""),
}


async def own_cell(book: Books, images: ContainerImages | None, cell: Cell = CELL) -> tuple[OwnCell, Admission]:
    store = CellStore(book.engine, 60)
    await store.register(cell)
    own = OwnCell(book.engine, store, cell, NO_NODES)
    await own.record(Condition(None, images=images))
    await own.record(Condition(None))  # its service does not answer for a moment
    return own, Admission(book.engine, book.notifier, "true", own_cell=own)


def submission(image: str | None) -> JobSubmission:
    agent = AgentSettings(sandbox_tier=Tier.CONTAINER, image=image)
    return JobSubmission(project_id="default", prompt="Do it.", agent=agent)


async def test_what_the_only_cell_does_not_allow_is_refused(book: Books) -> None:
    for name, (images, image, says) in IMAGES.items():
        _, admission = await own_cell(book, images)
        asked = submission(image)
        if says:
            with pytest.raises(FailedPrecondition, match="image") as caught:
                await admission.admit(asked, None)
            assert (caught.value.reason, says in caught.value.message) == ("IMAGE_NOT_ALLOWED", True), name
        else:
            assert (await admission.admit(asked, None)).state is JobState.PENDING, name


async def test_another_cell_may_allow_it(book: Books) -> None:
    _, admission = await own_cell(book, NONE)
    await CellStore(book.engine, 60).register(replace(CELL, cell_id="other"))
    asked = submission("agents:1")
    assert (await admission.admit(asked, None)).state is JobState.PENDING


async def test_a_cell_that_takes_no_jobs_refuses_none(book: Books) -> None:
    _, admission = await own_cell(book, NONE, replace(CELL, capacity=0))
    repository = Repository(repository_id="repo-1", project_id="default", url="/outside", create_time=datetime.now(UTC))
    await CatalogStore(book.engine).create(REPOSITORIES, repository)
    asked = replace(submission("agents:1"), repository_id="repo-1")
    assert (await admission.admit(asked, None)).state is JobState.PENDING
