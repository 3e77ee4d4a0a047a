"""Options and arguments that several commands have."""

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON: one object a line.")
job_or_execution = click.argument("id_", metavar="ID")
