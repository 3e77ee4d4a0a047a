"""`boatyard worker`."""

from services.cli.catalogue import LIMIT, NAME, PROJECT, ResourceType, resource_commands
from services.cli.flags import AGENT_FLAGS, Flag

KIND = ResourceType(
    "Worker",
    "Workers",
    "worker",
    "worker",
    [
        Flag(
            "--name",
            "display_name",
            f"{NAME.help} It is also the author of the worker's commits (default: the id).",
            "TEXT",
        ),
        Flag("--template", "template_id", "The worker's template.", "ID"),
        *AGENT_FLAGS,
        LIMIT,
        PROJECT,
    ],
    ["worker_id", "display_name", "template_id"],
)

command = resource_commands(
    KIND, "Manage workers, named agents: a template, and settings that override the template's."
)
