"""Options and arguments that several commands share, and their progress messages."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from services.common import display

Command = TypeVar("Command", bound=Callable[..., Any])


class Utf8(click.ParamType[str]):
    """Text as the API takes it: an argument that is not UTF-8 is a usage error, not a traceback."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value. Raises click.UsageError when it is not UTF-8."""
        try:
            value.encode()
        except UnicodeEncodeError:
            pass  # bytes that the locale's encoding, which may be ASCII, has no characters for
        else:
            return value
        try:
            return os.fsencode(value).decode()
        except UnicodeError:
            self.fail("must be UTF-8", param, ctx)


TEXT = Utf8()

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
raw = click.option(
    "--raw",
    is_flag=True,
    help="Show everything as the agent writes it: it may act on your terminal (titles, the clipboard, the cursor), and"
    " the lines of one started by --agent are shown in place of what they mean.",
)
job_or_execution = click.argument("id_", metavar="ID", type=TEXT)


def of_project(what: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the option for listing `what`, such as "Only jobs", of one project."""
    text = f"{what} of this project (default: $BOATYARD_PROJECT, or else all)."
    return click.option("--project", type=TEXT, metavar="ID", default="", envvar="BOATYARD_PROJECT", help=text)


def cell(command: Command) -> Command:
    """Add the argument that names a cell; without it the command is about the cell whose gateway is called."""
    return click.argument("cell_id", metavar="[CELL]", type=TEXT, default="", required=False)(command)


def say(text: str) -> None:
    """Print a message on standard error."""
    for line in display.message(f"boatyard: {text}"):
        click.echo(line, err=True)
