"""`boatyard project`."""

from services.cli.catalogue import NAME, Kind, group

KIND = Kind("Project", "Projects", "project", "project", [NAME], ["project_id", "display_name"])

command = group(
    KIND, "The namespaces of everything else. `default` is always there. Only an empty project can be deleted."
)
