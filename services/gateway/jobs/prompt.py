"""The task of an agent: the caller's prompt, and before it the work item and the input."""

import re
from collections.abc import Iterator, Sequence

from services.gateway.values.catalog import Document, WorkItem
from services.lifecycle.model.job_spec import INPUT_DATA, INPUT_DIRECTORY


def compose_task(
    prompt: str,
    work_item: WorkItem | None = None,
    related: Sequence[WorkItem] = (),
    *,
    files: Sequence[str] = (),
    has_data: bool = False,
) -> str:
    """Return the whole task: all that is known of the work item, the paths of the input, and then the prompt."""
    parts = []
    if work_item is not None:
        parts += [f"# {work_item.title}", work_item.description]
        if work_item.notes:
            parts += ["## Notes", *work_item.notes]
        if related:
            parts += [
                "## Related",
                "\n".join(f"- {each.work_item_id} ({each.state}): {each.title}" for each in related),
            ]
        if work_item.documents:
            parts += ["## Documents", *map(_quoted, work_item.documents)]
    if lines := list(_input(files, has_data=has_data)):
        parts += ["## Input", "\n".join(lines)]
    if not parts:
        return prompt
    return "\n\n".join(part.strip() for part in (*parts, "## What to do", prompt) if part.strip()) + "\n"


def _input(names: Sequence[str], *, has_data: bool) -> Iterator[str]:
    yield from (f"- {INPUT_DIRECTORY}/{name}" for name in names)
    if has_data:
        yield f"- {INPUT_DATA}"


def _quoted(document: Document) -> str:
    """Return a document as a fenced block that nothing in the document can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", document.content)), default=0))
    return f"### {document.name}\n\n{fence}\n{document.content.rstrip()}\n{fence}"
