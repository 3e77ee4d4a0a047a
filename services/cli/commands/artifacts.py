"""`boatyard artifacts`."""

import click
from boatyard.gateway.v1 import runtime_pb2
from boatyard.git.v1 import git_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.lookup import execution_id_of
from services.cli.screen import Screen

_COLUMNS = ("SIZE", "NAME")


@click.command("artifacts", short_help="List the files that were kept of a job.")
@options.job_or_execution
@options.as_json
def command(id_: str, as_json: bool) -> None:
    """List the files that `boatyard run --artifact GLOB` kept of the last attempt of a job, or of an execution.

    `boatyard artifact ID NAME` reads one.
    """

    async def ask(gateway: Gateway) -> list[git_pb2.Artifact]:
        request = runtime_pb2.ListArtifactsRequest(execution_id=await execution_id_of(gateway, id_))
        return await gateway.list_all(gateway.runtime.ListArtifacts, request)

    Screen().listing(with_gateway(ask), shapes.artifact, _COLUMNS, _row, as_json=as_json, cut_last=True)


def _row(artifact: git_pb2.Artifact) -> tuple[str, ...]:
    return humanize.size(artifact.size_bytes), artifact.name
