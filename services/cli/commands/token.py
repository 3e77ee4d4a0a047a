"""`boatyard token`."""

import uuid

import click
from boatyard.access.v1 import access_pb2
from boatyard.gateway.v1 import auth_pb2

from services.cli import humanize, options, parsing, shapes
from services.cli.clients import with_gateway
from services.cli.fields import choices, plain
from services.cli.screen import Screen, first_line

_ROLES = choices(access_pb2.Role.DESCRIPTOR)
_COLUMNS = ("TOKEN", "ROLE", "PROJECTS", "AGE", "ENDS IN", "LAST USED", "NAME")


@click.group("token", short_help="Manage tokens.")
def command() -> None:
    """Manage the tokens of people and programs: each has a role, for all projects or for some.

    Every command takes --json.
    """


@command.command("create")
@click.option("--role", type=click.Choice(list(_ROLES)), required=True, help="What the token's holder may do.")
@click.option(
    "--project",
    "projects",
    type=options.TEXT,
    metavar="ID",
    multiple=True,
    help="Only for this project; may be repeated (default: all).",
)
@click.option(
    "--coordinator",
    type=options.TEXT,
    metavar="ID",
    default="",
    help="For the role coordinator: the one that may use the token (default: the first that does).",
)
@click.option("--name", type=options.TEXT, metavar="TEXT", default="", help="The caller's name in records.")
@click.option(
    "--days",
    type=parsing.SPAN,
    metavar="N",
    help="Days until the token expires (default: valid until it is revoked).",
)
@options.as_json
def create(
    *, role: str, projects: tuple[str, ...], coordinator: str, name: str, days: float | None, as_json: bool
) -> None:
    """Create a token and print its secret, which is never shown again.

    A viewer reads. An operator also has work done: jobs, work items, approvals. An admin also configures: projects,
    repositories, templates, workers, hooks, tokens, cells. A coordinator runs jobs on another machine; to replace its
    token while it works, create a second one with its id, and revoke the first when the second is in use.

    \b
    Examples:
      boatyard token create --role operator --project harbour --name ci --days 90
      BOATYARD_TOKEN=… boatyard ps
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    request = auth_pb2.CreateTokenRequest(
        request_id=uuid.uuid4().hex,  # safe to retry
        token=auth_pb2.Token(
            name=name,
            role=access_pb2.Role.Value(f"ROLE_{role.upper()}"),
            project_ids=projects,
            coordinator_id=coordinator,
        ),
        lifetime=None if days is None else parsing.duration(days * 86400),
    )
    created = with_gateway(lambda gateway: gateway.ask(gateway.tokens.CreateToken(request)))
    screen = Screen()
    if as_json:
        screen.json(_shape(created.token) | {"secret": created.secret})
        return
    token = created.token
    named = f" of {token.name}" if token.name != token.token_id else ""
    screen.say(f"token {token.token_id}{named}; its secret is not shown again:")
    screen.value(created.secret)


@command.command("list")
@click.option("--all", "ended", is_flag=True, help="Include tokens that were revoked or have expired.")
@options.as_json
def show_all(ended: bool, as_json: bool) -> None:
    """List tokens, newest first."""
    request = auth_pb2.ListTokensRequest(include_ended=ended)
    tokens = with_gateway(lambda gateway: gateway.list_all(gateway.tokens.ListTokens, request))
    Screen().listing(tokens, _shape, _COLUMNS, _row, as_json=as_json, cut_last=True)


@command.command("revoke")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def revoke(id_: str, as_json: bool) -> None:
    """Revoke a token: within seconds no cell accepts it any more."""
    answer = with_gateway(
        lambda gateway: gateway.ask(gateway.tokens.RevokeToken(auth_pb2.RevokeTokenRequest(token_id=id_)))
    )
    Screen().answer(_shape(answer.token), f"{id_} revoked", as_json=as_json)


def _shape(token: auth_pb2.Token) -> shapes.Shape:
    return {"kind": "token", **plain(token)}


def _row(token: auth_pb2.Token) -> tuple[str, ...]:
    ends = humanize.until(token.expire_time) if token.HasField("expire_time") else ""
    return (
        token.token_id,
        f"{str(_shape(token)['role']).lower()} {token.coordinator_id}".rstrip(),
        " ".join(token.project_ids) or "all",
        humanize.age(token.create_time),
        "revoked" if token.HasField("revoke_time") else ends,
        humanize.age(token.last_use_time) if token.HasField("last_use_time") else "never",
        first_line(token.name, 80),
    )
