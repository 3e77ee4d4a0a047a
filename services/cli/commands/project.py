"""`boatyard project`."""

from services.cli.catalogue import LIMIT, NAME, ResourceType, resource_commands
from services.cli.flag_table import FLOOR
from services.cli.flags import Flag

WORKER = Flag("--default-worker", "default_worker_id", "The worker for work items without one.", "ID")
TODO_ONLY = Flag("--todo-only", "todo_only", "Its jobs may take up only work items that are to do.")
KIND = ResourceType(
    "Project",
    "Projects",
    "project",
    "project",
    [NAME, LIMIT, WORKER, TODO_ONLY, *FLOOR],
    ["project_id", "display_name"],
)

command = resource_commands(
    KIND,
    "Manage projects, the namespaces of everything else. The project `default` always exists. Only an empty project can"
    " be deleted.",
)
