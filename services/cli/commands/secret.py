"""`boatyard secret`."""

import click
from boatyard.gateway.v1 import catalog_pb2

from services.cli import options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.job_request import DEFAULT_PROJECT
from services.cli.parsing import SECRET
from services.cli.screen import Screen
from services.common.errors import NotFound

_of_project = click.option(
    "--project",
    type=options.TEXT,
    metavar="ID",
    default=DEFAULT_PROJECT,
    envvar="BOATYARD_PROJECT",
    help="The project (default: $BOATYARD_PROJECT, or else default).",
)


@click.group("secret", short_help="Manage the secrets of a project.")
def command() -> None:
    """Manage the secrets of a project.

    Every agent of the project gets them as environment variables. Their values are encrypted in the database, are in no
    answer and no log, and are shown as [redacted:NAME] wherever an agent writes them. Whoever may submit jobs in the
    project may have an agent use them. `--secret` of template, worker, item and run is for some jobs alone.

    Every command takes --json.
    """


@command.command("set", short_help="Set secrets.")
@click.argument("secrets", metavar="NAME=@FILE|NAME…", type=SECRET, nargs=-1, required=True)
@_of_project
@options.as_json
def set_(secrets: tuple[tuple[str, str], ...], project: str, as_json: bool) -> None:
    """Set secrets: from a file, from standard input (NAME=@-), or from the variable NAME of this command."""

    async def set_all(gateway: Gateway) -> None:
        for name, value in secrets:
            request = catalog_pb2.SetProjectSecretRequest(project_id=project, name=name, value=value)
            await gateway.ask(gateway.catalog.SetProjectSecret(request))

    with_gateway(set_all)
    screen = Screen()
    for name, _ in secrets:
        screen.answer(_shape(name), f"{name} set", as_json=as_json)


@command.command("list", short_help="List the names of secrets.")
@_of_project
@options.as_json
def list_(project: str, as_json: bool) -> None:
    """List the names of a project's secrets."""
    request = catalog_pb2.GetProjectRequest(project_id=project)
    answer = with_gateway(lambda gateway: gateway.ask(gateway.catalog.GetProject(request)))
    Screen().listing(sorted(answer.project.secrets), _shape, ["NAME"], lambda name: (name,), as_json=as_json)


@command.command("delete", short_help="Delete a secret.")
@click.argument("name", type=options.TEXT)
@_of_project
@options.as_json
def delete(name: str, project: str, as_json: bool) -> None:
    """Delete one of a project's secrets. Jobs that were admitted before keep it."""

    async def delete_known(gateway: Gateway) -> None:
        known = await gateway.ask(gateway.catalog.GetProject(catalog_pb2.GetProjectRequest(project_id=project)))
        if name not in known.project.secrets:
            raise NotFound("secret", name)
        request = catalog_pb2.DeleteProjectSecretRequest(project_id=project, name=name)
        await gateway.ask(gateway.catalog.DeleteProjectSecret(request))

    with_gateway(delete_known)
    Screen().answer(_shape(name), f"{name} deleted", as_json=as_json)


def _shape(name: str) -> shapes.Shape:
    return {"kind": "secret", "name": name}
