"""Whatever an update can set of a resource, another can clear: by the API, and by `--clear` of the command line."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from boatyard.gateway.v1 import catalog_pb2 as pb
from click.testing import CliRunner
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.cli.catalogue import ResourceType, clearable_paths
from services.cli.commands import item, project, provider, repository, template, worker
from services.cli.fields import fields_along
from services.cli.main import cli
from tests.kit.catalog import Stubs, serving_catalog
from tests.kit.certificates import Authority

KINDS = (item.KIND, project.KIND, provider.KIND, repository.KIND, template.KIND, worker.KIND)
BARE = {
    "WorkItem": pb.WorkItem(title="A ticket"),
    "Provider": pb.Provider(wire=1, base_url="https://127.0.0.1/v1"),
    "Repository": pb.Repository(url="https://example.com/one/app"),
}
ALWAYS = {"WorkItem": {"title"}, "Provider": {"wire", "base_url"}, "Repository": {"url"}}
"""What a resource cannot be without."""
VALUES: dict[str, Any] = {
    "allowed_hosts": ["example.com"],
    "base_url": "https://example.com",
    "before": ["push"],
    "default_revision": "main",
    "default_worker_id": "its-worker",
    "providers": ["a-provider"],
    "retry_on": ["AGENT_FAILED"],
    "related_work_item_ids": ["a-item"],
    "repository_id": "a-repository",
    "template_id": "a-template",
    "worker_id": "a-worker",
}


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving_catalog(tmp_path, providers_allowed="127.0.0.1") as stubs:
        for kind in (template.KIND, worker.KIND, item.KIND):
            await call(stubs, kind, "Create", **{kind.field: bare(kind, f"a-{kind.noun}")})
        another = pb.Repository(repository_id="a-repository", url="https://example.com/another")
        await call(stubs, repository.KIND, "Create", repository=another)
        yield stubs


def bare(kind: ResourceType, id_: str) -> Any:
    resource = kind.message(**{f"{kind.field}_id": id_})
    if kind.name in BARE:
        resource.MergeFrom(BARE[kind.name])
    return resource


async def call(stubs: Stubs, kind: ResourceType, verb: str, **fields: Any) -> Any:
    request = getattr(pb, f"{verb}{kind.name}Request")(**fields)
    return getattr(await getattr(stubs.catalog, f"{verb}{kind.name}")(request), kind.field)


def clearable(kind: ResourceType) -> Iterator[str]:
    """Yield the paths of a kind's fields that can be cleared."""
    for paths in clearable_paths(kind).values():
        yield from (path for path in paths if path not in ALWAYS.get(kind.name, ()))


def put(message: Any, path: str, authority: Authority) -> None:
    """Set a field to something that its rules allow."""
    *outer, field = fields_along(message, path)
    for each in outer:
        message = getattr(message, each.name)
    value = VALUES.get(field.name, _any(field))
    if field.name == "ca":
        value = authority.file.read_text()
    if field.is_repeated:
        container = getattr(message, field.name)
        container.update(value) if isinstance(value, dict) else container.extend(value)
    elif field.message_type is not None:
        part = getattr(message, field.name)
        part.SetInParent()
        for inner in value:
            put(part, inner, authority)
    else:
        setattr(message, field.name, value)


def _any(field: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"A": "a-value"}
    if field.message_type is not None and field.is_repeated:
        return [field.message_type._concrete_class(name="a-name")]
    if field.message_type is not None:
        return [name for name in ("seconds", "before", "requests") if name in field.message_type.fields_by_name]
    if field.enum_type is not None:
        return [1] if field.is_repeated else 1
    if field.name.endswith("_bytes"):
        return 64 << 20
    of_type = {FieldDescriptor.TYPE_BOOL: True, FieldDescriptor.TYPE_STRING: "a-value"}.get(field.type, 2)
    return [of_type] if field.is_repeated else of_type


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
async def test_every_setting_can_be_cleared_by_the_api(stubs: Stubs, kind: ResourceType, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    before = await call(stubs, kind, "Create", **{kind.field: bare(kind, "it")})
    if kind is project.KIND:
        await call(stubs, worker.KIND, "Create", worker=pb.Worker(worker_id="its-worker", project_id="it"))
    wrong = {}
    for path in clearable(kind):
        filled = bare(kind, "it")
        put(filled, path, authority)
        mask = FieldMask(paths=[path])
        changed = await call(stubs, kind, "Update", update_mask=mask, **{kind.field: filled})
        empty: Message = kind.message(**{f"{kind.field}_id": "it"})
        cleared = await call(stubs, kind, "Update", update_mask=mask, **{kind.field: empty})
        if changed == before or (cleared != before and not is_cleared(cleared, path)):
            wrong[path] = (changed, cleared)
    assert wrong == {}


def is_cleared(message: Any, path: str) -> bool:
    """True when a field has nothing of its own: a floor that was made for it may stay, and want nothing."""
    for field in fields_along(message, path):
        if field.has_presence and not field.is_repeated and not message.HasField(field.name):
            return True
        message = getattr(message, field.name)
    return message.ByteSize() == 0 if isinstance(message, Message) else not message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
def test_every_option_of_an_update_has_a_name_to_clear(kind: ResourceType) -> None:
    """But those that stand for another's value, and the two ways of a switch."""
    names = {flag.option.removeprefix("--") for flag in kind.flags if not flag.is_fixed and flag.stands_for is None}
    assert clearable_paths(kind).keys() == names
    output = CliRunner().invoke(cli, [kind.noun, "update", "--help"], terminal_width=80).output
    assert "--clear NAME" in output
