"""`boatyard artifact`."""

from pathlib import Path

import click
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options, shapes
from services.cli.saving import save
from services.cli.screen import Screen


@click.command("artifact", short_help="Read or save a file that was kept of a job.")
@options.job_or_execution
@click.argument("name", type=options.TEXT)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it to this file.")
@options.as_json
def command(id_: str, name: str, output: Path | None, as_json: bool) -> None:
    """Write a file that was kept of the last attempt of a job, or of an execution, to standard output or to a file.

    `boatyard artifacts ID` lists their names. With -o the file appears when all of it is there.
    """
    if as_json and output is None:
        raise click.UsageError("--json says what was written: it needs -o FILE")
    screen = Screen()
    size = save(
        screen,
        id_,
        output,
        lambda gateway, execution_id: gateway.runtime.ReadArtifact(
            runtime_pb2.ReadArtifactRequest(execution_id=execution_id, name=name)
        ),
    )
    if as_json:
        screen.json(shapes.saved_artifact(id_, name, str(output), size))
