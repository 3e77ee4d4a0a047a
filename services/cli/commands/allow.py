"""`boatyard allow`."""

from services.cli.permission_answers import answer_command

command = answer_command("allow", allow=True)
