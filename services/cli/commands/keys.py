"""`boatyard keys`."""

import time

import click
from boatyard.gateway.v1 import admin_pb2

from services.cli import humanize, options, shapes
from services.cli.clients import with_gateway
from services.cli.screen import Screen

_LOOK_SECONDS = 1.0


@click.group("keys", invoke_without_command=True, short_help="Show or replace the keys of the database.")
@options.as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show the keys that encrypt secrets in the database: their ids, not the keys.

    Every cell has them in $BOATYARD_HOME/keys. Keep a copy of that file apart from copies of the database: without it
    the secrets in it are lost, and with both they can be read.
    """
    if context.invoked_subcommand is None:
        _show(_look(), as_json)


@command.command("rotate", short_help="Replace the key by a new one.")
@click.option("--no-wait", is_flag=True, help="Begin, and do not wait for the end.")
@options.as_json
def rotate(no_wait: bool, as_json: bool) -> None:
    """Replace the key by a new one, and encrypt everything with that, while cells and jobs go on.

    The cells that are up take the new key over by themselves, also into their files. One that is down meanwhile must
    be given the new file by `up --keys-file`. Afterwards copy the file again: earlier copies open nothing any more.
    """
    screen = Screen()
    begun = with_gateway(lambda gateway: gateway.ask(gateway.admin.RotateKeys(admin_pb2.RotateKeysRequest())))
    keys = begun.keys
    waiting: list[str] = []
    while not no_wait and not _is_done(keys):
        if list(keys.waiting_for_cell_ids) != waiting:
            waiting = list(keys.waiting_for_cell_ids)
            screen.say(f"waiting for {', '.join(waiting)}" if waiting else "encrypting", style="")
        time.sleep(_LOOK_SECONDS)
        keys = _look().keys
    if as_json:
        screen.json(_shape(keys.keys[0]))
    else:
        screen.value(keys.keys[0].key_id)


def _look() -> admin_pb2.GetKeysResponse:
    return with_gateway(lambda gateway: gateway.ask(gateway.admin.GetKeys(admin_pb2.GetKeysRequest())))


def _is_done(keys: admin_pb2.Keys) -> bool:
    return len(keys.keys) == 1 and not keys.values_left


def _show(answer: admin_pb2.GetKeysResponse, as_json: bool) -> None:
    screen, keys = Screen(), answer.keys
    screen.listing(keys.keys, _shape, ["KEY", "STATE", "AGE"], _row, as_json=as_json)
    if as_json:
        return
    if keys.waiting_for_cell_ids:
        screen.say(f"waiting for {', '.join(keys.waiting_for_cell_ids)}", style="")
    if keys.values_left:
        screen.say(f"{keys.values_left} values are not encrypted with the current key yet", style="")


def _shape(key: admin_pb2.SealingKey) -> shapes.Shape:
    state = shapes.name(admin_pb2.SealingKey.State.Name, key.state)
    return {"kind": "key", "key_id": key.key_id, "state": state, "create_time": shapes.time(key.create_time)}


def _row(key: admin_pb2.SealingKey) -> tuple[str, ...]:
    state = shapes.name(admin_pb2.SealingKey.State.Name, key.state)
    return key.key_id, state, humanize.age(key.create_time)
