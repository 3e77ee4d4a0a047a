"""`create`, `list`, `show`, `update` and `delete` for the catalogue's resources: a group of commands for each type."""

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import click
from boatyard.gateway.v1 import catalog_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.cli import humanize, options, shapes
from services.cli.clients import Gateway, with_gateway
from services.cli.fields import cases_of, fields_along, plain, value_of
from services.cli.flags import Flag, GroupedCommand, clearable, fill, is_emptied, options_of
from services.cli.screen import Screen, first_line


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A type of resource: `name` and `plural` as in the RPCs, `noun` for people, and the columns of its list.

    `order` is that of the list, `on_change` what becomes of jobs when one is changed, `on_delete` which can be deleted.
    `messages` and `service` are where its messages and RPCs are. `cells` writes columns that are no fields of it.
    """

    name: str
    plural: str
    noun: str
    field: str
    flags: Sequence[Flag]
    columns: Sequence[str]
    order: str = "newest first"
    on_change: str = "Jobs that were admitted before keep what they have."
    on_delete: str = " that is not in use"
    messages: ModuleType = catalog_pb2
    service: str = "catalog"
    cells: Mapping[str, Callable[[Any], str]] = dataclasses.field(default_factory=dict)

    @property
    def a_noun(self) -> str:
        """The noun with its article."""
        return f"{'an' if self.noun == 'item' else 'a'} {self.noun}"

    @property
    def plural_noun(self) -> str:
        """The noun in the plural."""
        return f"{self.noun.removesuffix('y')}ies" if self.noun.endswith("y") else f"{self.noun}s"

    @property
    def grouped_flags(self) -> list[Flag]:
        """The flags, those without a heading under the noun."""
        return [replace(flag, group=flag.group or self.noun.capitalize()) for flag in self.flags]

    @property
    def message(self) -> type[Message]:
        """The contract's message of the resource."""
        return getattr(self.messages, self.name)  # type: ignore[no-any-return]

    async def ask(self, gateway: Gateway, verb: str, **fields: Any) -> Any:  # noqa: ANN401 - the verb's response
        """Call the RPC of a verb: Create, Get, Update or Delete."""
        request = getattr(self.messages, f"{verb}{self.name}Request")(**fields)
        return await gateway.ask(getattr(getattr(gateway, self.service), f"{verb}{self.name}")(request))

    async def list_all(self, gateway: Gateway, limit: int, **filters: str) -> list[Any]:
        """Return the first `limit` resources."""
        request = getattr(self.messages, f"List{self.plural}Request")(**filters)
        return await gateway.list_all(getattr(getattr(gateway, self.service), f"List{self.plural}"), request, limit)


LIMIT = Flag(
    "--max-running",
    "max_running_jobs",
    "How many of its jobs may run at once, on all cells together (0: no limit).",
    "N",
)
NAME = Flag("--name", "display_name", "A name for people.", "TEXT")


def resource_commands(kind: ResourceType, text: str) -> click.Group:
    """Make the group of commands of a resource type."""
    group = click.Group(
        kind.noun, help=f"{text}\n\nEvery command takes --json.", short_help=f"Manage {kind.plural_noun}."
    )
    for command in (_create(kind), _list(kind), _show(kind), _update(kind), _delete(kind)):
        group.add_command(command)
    return group


def print_changed(screen: Screen, kind: ResourceType, resource: Any, *, as_json: bool) -> None:  # noqa: ANN401 - any message of a kind
    """Print a resource that was created or changed: as JSON, or only its id."""
    if as_json:
        screen.json(resource_shape(kind, resource))
    else:
        screen.value(getattr(resource, f"{kind.field}_id"))


def resource_shape(kind: ResourceType, resource: Message) -> shapes.Shape:
    """Return a resource as JSON with the contract's field names; unset fields are null."""
    return {"kind": kind.field, **plain(resource)}


def _create(kind: ResourceType) -> click.Command:
    def create(id_: str | None, as_json: bool, **values: Any) -> None:  # noqa: ANN401 - text or texts
        resource = kind.message()
        if id_:
            setattr(resource, f"{kind.field}_id", id_)
        fill(resource, kind.flags, values)
        created = with_gateway(
            lambda gateway: kind.ask(
                gateway, "Create", request_id=uuid.uuid4().hex, **{kind.field: resource}
            )  # safe to retry
        )
        print_changed(Screen(), kind, getattr(created, kind.field), as_json=as_json)

    text = f"Create {kind.a_noun} and print its id. Without ID, one is made."
    parameters = [
        click.Argument(["id_"], metavar="[ID]", type=options.TEXT, required=False),
        *options_of(kind.message, kind.grouped_flags),
    ]
    return _command("create", create, text + _layers(kind), parameters)


def _list(kind: ResourceType) -> click.Command:
    has_project = kind.message.DESCRIPTOR.name != "Project"

    def show_all(limit: int, as_json: bool, project: str = "") -> None:
        filters = {"project_id": project} if has_project else {}
        resources = with_gateway(lambda gateway: kind.list_all(gateway, limit, **filters))
        titles = [column.rpartition(".")[2].removesuffix("_id").replace("_", " ").upper() for column in kind.columns]
        Screen().listing(resources, shape_of, [*titles, "AGE"], row_of, as_json=as_json)

    def shape_of(resource: Message) -> shapes.Shape:
        return resource_shape(kind, resource)

    def row_of(resource: Any) -> list[str]:  # noqa: ANN401 - any message with a create_time
        age = humanize.age(resource.create_time) if resource.HasField("create_time") else ""
        cells = (kind.cells[each](resource) if each in kind.cells else _cell(resource, each) for each in kind.columns)
        return [*cells, age]

    parameters: list[click.Parameter] = [
        click.Option(
            ["-n", "--limit"],
            metavar="N",
            type=click.IntRange(1),
            default=100,
            show_default=True,
            help="List at most N.",
        )
    ]
    command = _command("list", show_all, f"List {kind.plural_noun}, {kind.order}.", parameters)
    return options.of_project("Only those")(command) if has_project else command


def _show(kind: ResourceType) -> click.Command:
    def show(id_: str, as_json: bool) -> None:
        screen = Screen()
        answer = with_gateway(lambda gateway: kind.ask(gateway, "Get", **{f"{kind.field}_id": id_}))
        described = resource_shape(kind, getattr(answer, kind.field))
        if as_json:
            screen.json(described)
            return
        for label, value in _flat(described):
            screen.field(label, value)

    return _command("show", show, f"Show {kind.a_noun} in full.", [_id()])


def _update(kind: ResourceType) -> click.Command:
    flags = [clearable(kind.message, flag) for flag in kind.grouped_flags if not flag.is_fixed]
    cleared = clearable_paths(kind)

    def update(id_: str, clear: tuple[str, ...], as_json: bool, **values: Any) -> None:  # noqa: ANN401 - text or texts
        resource = kind.message(**{f"{kind.field}_id": id_})
        given = {flag.name: values[flag.name] for flag in flags if not is_emptied(flag, values[flag.name])}
        emptied = [flag.option.removeprefix("--") for flag in flags if flag.name not in given]
        paths = [*fill(resource, flags, given), *(path for name in (*clear, *emptied) for path in cleared[name])]
        if not paths:
            raise click.UsageError("nothing to change: give an option; see --help")
        mask = FieldMask(paths=paths)
        answer = with_gateway(lambda gateway: kind.ask(gateway, "Update", update_mask=mask, **{kind.field: resource}))
        print_changed(Screen(), kind, getattr(answer, kind.field), as_json=as_json)

    text = f"Change the given settings of {kind.a_noun}. {kind.on_change}"
    clear = click.Option(
        ["--clear"],
        type=click.Choice(list(cleared)),
        metavar="NAME",
        multiple=True,
        help="Unset the setting of the option --NAME; may be repeated.",
    )
    return _command("update", update, text + _layers(kind), [_id(), *options_of(kind.message, flags), clear])


def clearable_paths(kind: ResourceType) -> dict[str, list[str]]:
    """Return the names that `update --clear` takes, and the paths of the fields that each unsets."""
    flags = [flag for flag in kind.flags if not flag.is_fixed and flag.stands_for is None]
    return {flag.option.removeprefix("--"): _paths(kind.message, flag.path) for flag in flags}


def _layers(kind: ResourceType) -> str:
    """Return what holds where an option is not given, for resources that jobs are made from."""
    if not any(flag.path.startswith("agent.") for flag in kind.flags):
        return ""
    return (
        "\n\nOf kind, template, worker, item and job, the last that sets something holds; the defaults below hold where"
        " none does."
    )


def _paths(message: type[Message], path: str) -> list[str]:
    """Return the paths of what is cleared: of a oneof, those of all its cases."""
    last = fields_along(message, path)[-1]
    return [path.removesuffix(last.name) + case for case in cases_of(last)] or [path]


def _delete(kind: ResourceType) -> click.Command:
    def delete(id_: str, as_json: bool) -> None:
        with_gateway(lambda gateway: kind.ask(gateway, "Delete", **{f"{kind.field}_id": id_}))
        if not as_json:
            Screen().say(f"{id_} deleted", style="")

    return _command("delete", delete, f"Delete {kind.a_noun}{kind.on_delete}.", [_id()])


def _command(name: str, run: Callable[..., None], text: str, parameters: Sequence[click.Parameter]) -> click.Command:
    command = GroupedCommand(name, callback=run, help=text, short_help=text.partition("\n")[0], params=list(parameters))
    return options.as_json(command)


def _id() -> click.Parameter:
    return click.Argument(["id_"], metavar="ID", type=options.TEXT)


def _flat(described: shapes.Shape, prefix: str = "") -> list[tuple[str, str]]:
    """Return a line for all that is set, also for what is set to nothing: it hides what other layers say.

    A floor has no other layers below it: what it leaves open says nothing.
    """
    lines: list[tuple[str, str]] = []
    for name, value in described.items():
        if name == "secrets" and value:  # of which nobody is told more than the names
            lines.append((prefix + name, ", ".join(sorted(value))))
        elif isinstance(value, dict) and value:
            inner = _flat(value, f"{prefix}{name}.") or ([(prefix + name, "{}")] if prefix else [])
            lines += [line for line in inner if name != "floor" or line[1] not in {"{}", "False"}]
        elif isinstance(value, list):
            lines += [line for each in value for line in _flat({name: each}, prefix)]
        elif value not in (None, {}) and name != "kind":
            lines.append((prefix + name, str(value) or '""'))
    return lines


def _cell(resource: Message, column: str) -> str:
    *outer, last = fields_along(resource, column)
    message: Any = resource
    for field in outer:
        message = getattr(message, field.name)
    value = message.WhichOneof(last.name) if cases_of(last) else value_of(message, last)
    return "" if value is None else first_line(str(value), 80)
