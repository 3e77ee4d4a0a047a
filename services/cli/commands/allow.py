"""`boatyard allow`."""

from services.cli.permissions import answering

command = answering("allow", allow=True)
