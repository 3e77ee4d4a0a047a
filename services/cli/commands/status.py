"""`boatyard status`."""

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
from services.cli.screen import Screen


@click.command("status", short_help="Show how much there is to do.")
@options.as_json
def command(as_json: bool) -> None:
    """Show how many jobs there are in each state, and how many cells have how much room for them."""
    screen = Screen()
    found = with_gateway(lambda gateway: gateway.ask(gateway.admin.GetStatus(admin_pb2.GetStatusRequest())))
    if as_json:
        screen.json(shapes.status(found))
        return
    cells = f"{found.active_cells} active, {found.paused_cells} paused, {found.away_cells} away"
    jobs = ", ".join(f"{count} {state.lower()}" for state, count in sorted(found.jobs.items()))
    lines = [
        ("version", found.version),
        ("cells", f"{cells}; {found.jobs['RUNNING']} of {found.capacity} places taken"),
        ("jobs", jobs or "none"),
    ]
    if found.HasField("oldest_wait_time"):
        lines.append(("waiting", f"the oldest for {humanize.age(found.oldest_wait_time)}"))
    screen.table(("WHAT", "HOW MUCH"), lines)
