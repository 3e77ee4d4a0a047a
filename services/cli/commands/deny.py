"""`boatyard deny`."""

from services.cli.permission_answers import answer_command

command = answer_command("deny", allow=False)
