"""`boatyard record`."""

from pathlib import Path

import click
from boatyard.gateway.v1 import runtime_pb2

from services.cli import options, shapes
from services.cli.saving import save
from services.cli.screen import Screen


@click.group("record", short_help="Read or save what a job's agent asked of models.")
def command() -> None:
    """Read or save what a job's agent asked of models, and what they answered, of jobs that ran with --record.

    With -o FILE, --json says what was written.
    """


@command.command("get", short_help="Read or save a recording.")
@options.job_or_execution
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it to this file.")
@options.as_json
def get(id_: str, output: Path | None, as_json: bool) -> None:
    """Write the recording of the last attempt of a job, or of an execution, to standard output or to a file.

    It is lines of JSON, without secrets; `boatyard run --replay FILE` replays it. With -o the file appears when all of
    it is there. While the agent works, it is what there is so far.
    """
    if as_json and output is None:
        raise click.UsageError("--json says what was written: it needs -o FILE")
    screen = Screen()
    size = save(
        screen,
        id_,
        output,
        lambda gateway, execution_id: gateway.runtime.ReadRecording(
            runtime_pb2.ReadRecordingRequest(execution_id=execution_id)
        ),
    )
    if as_json:
        screen.json(shapes.saved_recording(id_, str(output), size))
