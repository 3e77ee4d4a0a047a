"""Options by which several commands select jobs."""

import click

from services.cli.options import Command
from services.cli.parsing import SELECTOR


def by_label(command: Command) -> Command:
    """Add the option for only the jobs whose labels match selectors."""
    text = "Only jobs with this label (KEY=VALUE or KEY) or without (KEY!=VALUE or !KEY); if repeated, all must match."
    return click.option("--label", "labels", type=SELECTOR, metavar="SELECTOR", multiple=True, help=text)(command)
