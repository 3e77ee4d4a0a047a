"""`boatyard worker`."""

from services.cli.catalogue import AGENT_FLAGS, NAME, PROJECT, Flag, Kind, group

KIND = Kind(
    "Worker",
    "Workers",
    "worker",
    "worker",
    [
        Flag("--name", "display_name", f"{NAME.help} It is the author of its commits (default: the id).", "TEXT"),
        Flag("--template", "template_id", "The template that it is of.", "ID"),
        *AGENT_FLAGS,
        PROJECT,
    ],
    ["worker_id", "display_name", "template_id"],
)

command = group(KIND, "Named agents: a template, and what this one has otherwise.")
