"""`boatyard audit`."""

from datetime import UTC, datetime, timedelta

import click
from boatyard.gateway.v1 import audit_pb2

from services.cli import humanize, options, parsing, shapes
from services.cli.clients import with_gateway
from services.cli.fields import plain
from services.cli.screen import Screen

_COLUMNS = ("AGE", "CALLER", "ROLE", "FROM", "CALL", "RESULT", "WHAT")


@click.command("audit", short_help="Show who did what.")
@click.option("--caller", type=options.TEXT, metavar="NAME", default="", help="Only calls of this caller.")
@click.option(
    "--call",
    "method",
    type=options.TEXT,
    metavar="NAME",
    default="",
    help="Only calls of this RPC, such as JobService/CancelJob.",
)
@click.option(
    "--of",
    "resource",
    type=options.TEXT,
    metavar="ID",
    default="",
    help="Only calls on this job, token, worker, or other resource.",
)
@click.option("--refused", is_flag=True, help="Only calls refused for lack of a token, a role or a project.")
@click.option("--hours", type=parsing.SPAN, metavar="N", help="Only calls of the last N hours.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1), default=100, show_default=True, help="List at most N."
)
@options.as_json
def command(
    *, caller: str, method: str, resource: str, refused: bool, hours: float | None, limit: int, as_json: bool
) -> None:
    """List who did what, newest first.

    Every call that changes something is recorded, whatever its result, and so is every call that was refused.
    """
    request = audit_pb2.ListAuditRecordsRequest(
        caller=caller, method=method, resource_id=resource, only_refused=refused
    )
    if hours is not None:
        request.after_time.FromDatetime(datetime.now(UTC) - timedelta(hours=hours))
    records = with_gateway(lambda gateway: gateway.list_all(gateway.audit.ListAuditRecords, request, limit))
    Screen().listing(records, _shape, _COLUMNS, _row, as_json=as_json, cut_last=True)


def _shape(record: audit_pb2.AuditRecord) -> shapes.Shape:
    return {"kind": "audit_record", **plain(record)}


def _row(record: audit_pb2.AuditRecord) -> tuple[str, ...]:
    return (
        humanize.age(record.time),
        record.caller or "nobody",
        str(plain(record)["role"] or "").lower(),
        record.origin,
        record.method,
        record.reason or record.status,
        " ".join(record.resources),
    )
