"""`boatyard template`."""

from services.cli.catalogue import NAME, PROJECT, ResourceType, resource_commands
from services.cli.flags import AGENT_FLAGS

KIND = ResourceType(
    "Template",
    "Templates",
    "template",
    "template",
    [NAME, *AGENT_FLAGS, PROJECT],
    ["template_id", "display_name", "agent.engine", "agent.model"],
)

command = resource_commands(
    KIND, "Manage templates, kinds of agents: system prompt, engine, model, limits and policy, for workers and jobs."
)
