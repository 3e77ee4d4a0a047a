"""`boatyard status`."""

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
from services.cli.screen import Screen


@click.command("status", short_help="Show how many jobs and cells there are.")
@options.as_json
def command(as_json: bool) -> None:
    """Show how many jobs there are in each state, how many cells there are, and how many jobs they can run at once."""
    screen = Screen()
    status = with_gateway(lambda gateway: gateway.ask(gateway.admin.GetStatus(admin_pb2.GetStatusRequest())))
    if as_json:
        screen.json(shapes.status(status))
        return
    cells = f"{status.active_cells} active, {status.paused_cells} paused, {status.away_cells} away"
    if status.not_ready_cells:
        cells += f", {status.not_ready_cells} not ready (`boatyard cells` says why)"
    jobs = ", ".join(f"{count} {state.lower()}" for state, count in sorted(status.jobs.items()))
    lines = [
        ("version", status.version),
        ("cells", f"{cells}; {status.jobs['RUNNING']} of {status.capacity} places taken"),
        ("jobs", jobs or "none"),
    ]
    if status.allowed_tiers:
        lines.append(("jobs may choose", shapes.choices(status)))
    if status.HasField("oldest_wait_time"):
        lines.append(("waiting", f"the oldest for {humanize.age(status.oldest_wait_time)}"))
    screen.table(("WHAT", "HOW MUCH"), lines)
