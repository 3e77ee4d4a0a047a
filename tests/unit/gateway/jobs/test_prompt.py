"""The task of an agent: the prompt, and before it the work item."""

from datetime import UTC, datetime

from services.gateway.jobs.prompt import compose_task
from services.gateway.values.catalog import Document, WorkItem


def test_without_a_work_item_it_is_the_prompt() -> None:
    assert compose_task("  Do it.\n", None) == "  Do it.\n"


def test_a_work_item_comes_before_the_prompt() -> None:
    item = WorkItem(
        work_item_id="item",
        project_id="default",
        title="Mend the crane",
        description="It creaks.\n",
        notes=("Ask Ann.", " "),
        documents=(Document("crane.md", "# Crane\n```sh\ngrease\n```\n"), Document("empty.txt", "")),
        create_time=datetime.now(UTC),
    )
    assert compose_task("Be quick.", item) == (
        "# Mend the crane\n\nIt creaks.\n\n## Notes\n\nAsk Ann.\n\n## Documents\n\n"
        "### crane.md\n\n````\n# Crane\n```sh\ngrease\n```\n````\n\n### empty.txt\n\n```\n\n```\n\n"
        "## What to do\n\nBe quick.\n"
    )
