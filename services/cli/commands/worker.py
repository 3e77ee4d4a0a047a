"""`boatyard worker`."""

from dataclasses import replace

from services.cli.catalogue import LIMIT, NAME, ResourceType, resource_commands
from services.cli.flag_table import PROJECT, SETTINGS, TEMPLATE

KIND = ResourceType(
    "Worker",
    "Workers",
    "worker",
    "worker",
    [
        replace(NAME, help=f"{NAME.help} It is also the author of the worker's commits (default: the id)."),
        replace(TEMPLATE, help="The worker's template."),
        LIMIT,
        PROJECT,
        *SETTINGS,
    ],
    ["worker_id", "display_name", "template_id"],
)

command = resource_commands(
    KIND, "Manage workers, named agents: a template, and settings that override the template's."
)
