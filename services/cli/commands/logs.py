"""`boatyard logs`."""

from contextlib import aclosing

import click
from boatyard.execution.v1.event_pb2 import EventKind

from services.cli import options, parsing
from services.cli.clients import Gateway, with_gateway
from services.cli.event_view import print_event
from services.cli.lookup import execution_id_of
from services.cli.resumed_streams import Outage, events_of_attempts, execution_events
from services.cli.screen import Screen

_KINDS = {name.removeprefix("EVENT_KIND_").lower(): number for name, number in EventKind.items() if number}


@click.command("logs", short_help="Show an agent's output.")
@options.job_or_execution
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Follow until the execution has ended; a job, until it has ended or asks a person.",
)
@click.option(
    "--from", "first", type=click.IntRange(1, parsing.MOST), default=1, metavar="SEQ", help="Start with this event."
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(_KINDS)),
    multiple=True,
    help="Only events of this kind; may be repeated.",
)
@options.raw
@options.as_json
def command(*, id_: str, follow: bool, first: int, kinds: tuple[str, ...], raw: bool, as_json: bool) -> None:
    """Show what an agent wrote and did, in an execution or in the last attempt of a job.

    The agent's standard output goes to standard output, byte for byte; everything else goes to standard error. On a
    terminal, only the text and its colours are shown, unless --raw is given. With --json, each event is a line on
    standard output, and --from continues after any of them.
    """
    screen = Screen(raw=raw)

    async def show(gateway: Gateway) -> None:
        execution_id = await execution_id_of(gateway, id_)
        numbers, outage = [_KINDS[kind] for kind in kinds], Outage(screen.say)
        if follow and execution_id != id_:
            events = events_of_attempts(gateway, id_, execution_id, outage, first=first, kinds=numbers)
        else:
            events = execution_events(gateway, execution_id, outage, first=first, follow=follow, kinds=numbers)
        async with aclosing(events) as batches:
            async for batch in batches:
                for event in batch:
                    print_event(screen, event, as_json=as_json)

    with_gateway(show)
