"""`boatyard project`."""

from services.cli.catalogue import LIMIT, NAME, ResourceType, resource_commands
from services.cli.flags import Flag

WORKER = Flag("--default-worker", "default_worker_id", "The worker that does items which have none.", "ID")
KIND = ResourceType("Project", "Projects", "project", "project", [NAME, LIMIT, WORKER], ["project_id", "display_name"])

command = resource_commands(
    KIND, "The namespaces of everything else. `default` is always there. Only an empty project can be deleted."
)
