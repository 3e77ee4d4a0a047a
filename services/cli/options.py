"""Options and arguments that several commands have, and what they say while they work."""

from contextlib import suppress

import click


class Utf8(click.ParamType[str]):
    """Text as the API takes it: an argument that is no UTF-8 is refused here, and not by a traceback."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See click.ParamType."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("must be UTF-8", param, ctx)
        return value


TEXT = Utf8()

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON: one object a line.")
job_or_execution = click.argument("id_", metavar="ID", type=TEXT)


def say(text: str) -> None:
    """Tell the person something on standard error; that nobody reads it any more keeps nobody from ending in order."""
    with suppress(OSError):
        click.echo(f"boatyard: {text}", err=True)
