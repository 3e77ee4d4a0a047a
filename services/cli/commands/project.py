"""`boatyard project`."""

from services.cli.catalogue import LIMIT, NAME, Kind, group

KIND = Kind("Project", "Projects", "project", "project", [NAME, LIMIT], ["project_id", "display_name"])

command = group(
    KIND, "The namespaces of everything else. `default` is always there. Only an empty project can be deleted."
)
