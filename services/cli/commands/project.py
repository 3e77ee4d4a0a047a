"""`boatyard project`."""

from services.cli.catalogue import LIMIT, NAME, Kind, group
from services.cli.flags import Flag

WORKER = Flag("--default-worker", "default_worker_id", "The worker that does items which have none.", "ID")
KIND = Kind("Project", "Projects", "project", "project", [NAME, LIMIT, WORKER], ["project_id", "display_name"])

command = group(
    KIND, "The namespaces of everything else. `default` is always there. Only an empty project can be deleted."
)
