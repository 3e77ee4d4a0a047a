"""`boatyard artifacts`."""

import click
from boatyard.gateway.v1 import runtime_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Line, Screen


@click.command("artifacts", short_help="List the files that were kept of a job.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """List the files that were kept of a job, or of an execution, by `boatyard run --artifact GLOB`: size and name.

    `boatyard artifact ID NAME` reads one.
    """
    screen = Screen()

    async def show(gateway: Gateway) -> None:
        request = runtime_pb2.ListArtifactsRequest(execution_id=await execution_id_of(gateway, id_))
        for artifact in await gateway.list_all(gateway.runtime.ListArtifacts, request):
            if as_json:
                screen.json({"execution_id": request.execution_id, **shapes.artifact(artifact)})
            else:
                screen.show(Line(f"{humanize.size(artifact.size_bytes):>10}  {artifact.name}"))

    with_gateway(show)
