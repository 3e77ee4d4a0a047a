"""`boatyard deny`."""

from services.cli.permissions import answering

command = answering("deny", allow=False)
