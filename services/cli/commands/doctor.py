"""`boatyard doctor`."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import click

from services.cli import checks, exit_codes, findings, options
from services.cli.screen import STATE_STYLES, Line, Screen
from services.common.home import Home

_MARKS = {findings.OK: "✓", findings.WARN: "!", findings.FAIL: "✗"}


@click.command("doctor", short_help="Check this machine.")
@click.option("--sandbox", "only_sandbox", is_flag=True, help="Check only the sandbox.")
@click.option(
    "--database-url",
    type=options.TEXT,
    metavar="URL",
    help="Check this database, as a gateway would use it, instead of the cell's. Nothing in it is changed.",
)
@click.option("--full", is_flag=True, help="Where no cell runs: start its services for a moment, and ask them too.")
@options.as_json
def command(*, only_sandbox: bool, database_url: str | None, full: bool, as_json: bool) -> int:
    """Check what Boatyard needs on this machine, and say how to fix what is missing.

    The database is checked with and without a running cell: that of BOATYARD_DATABASE_URL, or the cell's own file.
    Exits with 0 when nothing is broken, and with 1 otherwise.
    """
    screen = Screen()
    results: Iterable[findings.Finding] = (
        [checks.sandbox()]
        if only_sandbox
        else checks.all_checks(Home.from_environment(), database_url, starts_services=full)
    )
    broken = False
    for finding in results:
        broken = broken or finding.status == findings.FAIL
        if as_json:
            screen.json(asdict(finding))
        else:
            for line in _lines(finding):
                screen.show(line)
    return exit_codes.FAILED if broken else exit_codes.SUCCEEDED


def _lines(finding: findings.Finding) -> Iterator[Line]:
    style = STATE_STYLES[finding.status]
    yield Line.of((f"{_MARKS[finding.status]} ", style), (f"{finding.check:<22}", "bold"), finding.message)
    if finding.mend:
        yield Line.of(("  fix: ", style), finding.mend)
