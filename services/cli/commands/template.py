"""`boatyard template`."""

from services.cli.catalogue import NAME, ResourceType, resource_commands
from services.cli.flag_table import FLOOR, PROJECT, SETTINGS

KIND = ResourceType(
    "Template",
    "Templates",
    "template",
    "template",
    [NAME, PROJECT, *SETTINGS, *FLOOR],
    ["template_id", "display_name", "agent.engine", "agent.model"],
)

command = resource_commands(
    KIND, "Manage templates, kinds of agents: system prompt, engine, model, limits and policy, for workers and jobs."
)
