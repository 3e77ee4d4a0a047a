"""`boatyard worker`."""

from services.cli.catalogue import LIMIT, NAME, PROJECT, ResourceType, resource_commands
from services.cli.flags import AGENT_FLAGS, Flag

KIND = ResourceType(
    "Worker",
    "Workers",
    "worker",
    "worker",
    [
        Flag("--name", "display_name", f"{NAME.help} It is the author of its commits (default: the id).", "TEXT"),
        Flag("--template", "template_id", "The template that it is of.", "ID"),
        *AGENT_FLAGS,
        LIMIT,
        PROJECT,
    ],
    ["worker_id", "display_name", "template_id"],
)

command = resource_commands(KIND, "Named agents: a template, and what this one has otherwise.")
