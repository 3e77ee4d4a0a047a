"""`boatyard item`."""

import uuid

import click
from boatyard.gateway.v1 import catalog_pb2

from services.cli import options
from services.cli.catalogue import ResourceType, resource_commands, resource_shape
from services.cli.clients import with_gateway
from services.cli.flag_table import PROJECT, SETTINGS, TEMPLATE
from services.cli.flags import Flag
from services.cli.parsing import DOCUMENT, TEXT_OR_FILE
from services.cli.screen import Screen

KIND = ResourceType(
    "WorkItem",
    "WorkItems",
    "item",
    "work_item",
    [
        Flag("--title", "title", "The title, one line.", "TEXT"),
        Flag("--description", "description", "The description.", "TEXT|@FILE", TEXT_OR_FILE),
        Flag("--note", "notes", "A note; may be repeated, and an update replaces all notes.", "TEXT"),
        Flag("--document", "documents", "A text file that the agent gets too; may be repeated.", "FILE", DOCUMENT),
        Flag("--related", "related_work_item_ids", "A related item; may be repeated.", "ID"),
        Flag("--worker", "worker_id", "The worker that gets the job when the item is moved to in-progress.", "ID"),
        TEMPLATE,
        Flag("--repository", "repository_id", "The repository to work on.", "ID"),
        PROJECT,
        *SETTINGS,
    ],
    ["work_item_id", "state", "title"],
)

_STATES = {
    "in-progress": catalog_pb2.WorkItem.STATE_IN_PROGRESS,
    "todo": catalog_pb2.WorkItem.STATE_TODO,
    "done": catalog_pb2.WorkItem.STATE_DONE,
}

command = resource_commands(
    KIND,
    "Manage work items (tickets): what is to be done. `boatyard run --worker W --item I PROMPT` has one done; its"
    " title, description, notes and documents go with the prompt, and its settings override the worker's.",
)


@command.command("move")
@click.argument("id_", metavar="ID", type=options.TEXT)
@click.argument("state", type=click.Choice(list(_STATES)))
@options.as_json
def move(id_: str, state: str, as_json: bool) -> None:
    """Move an item to another state.

    Moving it to in-progress creates its job and prints the job's id; the job is for the item's worker or template, or
    for the default worker of its project. An item can be moved to todo or done only while no job works on it.
    """
    request = catalog_pb2.MoveWorkItemRequest(work_item_id=id_, state=_STATES[state], request_id=uuid.uuid4().hex)
    answer = with_gateway(lambda gateway: gateway.ask(gateway.catalog.MoveWorkItem(request)))
    if as_json:
        Screen().json({**resource_shape(KIND, answer.work_item), "job_id": answer.job_id or None})
    else:
        Screen().value(answer.job_id or id_)
