"""Providers of models in the catalogue: who may have them, where they may be, and that nobody is told a key."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from boatyard.agent.v1 import model_pb2
from boatyard.gateway.v1 import catalog_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import text

from services.agent.providers import ModelProvider, ModelWire
from services.common.db.engine import open_database, sqlite_url
from services.common.db.paging import Page
from services.common.errors import AlreadyExists, Invalid, NotFound, PermissionDenied
from services.gateway.catalog import wire
from services.gateway.catalog.store import PROVIDERS, CatalogStore
from services.gateway.schema.sealing import use_keys
from services.gateway.values.catalog import CatalogFilter
from services.gateway.values.principal import OURSELVES, Principal, Role, set_current_principal
from tests.kit.catalog import Stubs, refusal, serving_catalog
from tests.kit.databases import ring_of

KEYS = ["sk-first-key", "sk-second-key"]
GOOD: dict[str, Any] = {
    "provider_id": "claude",
    "wire": model_pb2.MODEL_WIRE_MESSAGES,
    "base_url": "https://api.example.com/anthropic",
    "keys": KEYS,
}


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[Stubs]:
    async with serving_catalog(tmp_path, providers_allowed="127.0.0.1, models.lan") as stubs:
        yield stubs


async def create(stubs: Stubs, **fields: Any) -> pb.Provider:
    request = pb.CreateProviderRequest(provider=pb.Provider(**{**GOOD, **fields}))
    return (await stubs.catalog.CreateProvider(request)).provider


async def update(stubs: Stubs, *paths: str, **fields: Any) -> pb.Provider:
    provider = pb.Provider(provider_id="claude", **fields)
    request = pb.UpdateProviderRequest(provider=provider, update_mask=FieldMask(paths=paths))
    return (await stubs.catalog.UpdateProvider(request)).provider


async def listed(stubs: Stubs, project_id: str = "") -> list[str]:
    answer = await stubs.catalog.ListProviders(pb.ListProvidersRequest(project_id=project_id))
    return [provider.provider_id for provider in answer.providers]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"wire": 0}, "provider.wire"),
        ({"wire": 9}, "provider.wire"),
        ({"base_url": ""}, "provider.base_url"),
        ({"base_url": "ftp://a.example"}, "provider.base_url"),
        ({"base_url": "https://user:word@a.example"}, "provider.base_url"),
        ({"base_url": "https://a.example/v1?key=1"}, "provider.base_url"),
        ({"base_url": "https://a.example/#x"}, "provider.base_url"),
        ({"base_url": "http://a.example"}, "provider.base_url"),
        ({"base_url": "https://10.0.0.1/v1"}, "provider.base_url"),
        ({"base_url": "https://169.254.169.254"}, "provider.base_url"),
        ({"base_url": "https://[::1]:8080"}, "provider.base_url"),
        ({"base_url": "https://[::ffff:10.0.0.1]"}, "provider.base_url"),
        ({"base_url": "http://[64:ff9b::a9fe:a9fe]/"}, "provider.base_url"),
        ({"keys": ["short"]}, "provider.keys[0]"),
        ({"keys": ["sk-two words"]}, "provider.keys[0]"),
        ({"keys": ["sk-a\nHost: b"]}, "provider.keys[0]"),
        ({"keys": ["sk-same-key"] * 2}, "provider.keys"),
        ({"keys": [f"sk-key-{number}" for number in range(17)]}, "provider.keys"),
        ({"models": [""]}, "provider.models[0]"),
        ({"aliases": {"": "m"}}, 'provider.aliases[""]'),
        ({"ca": "no certificate"}, "provider.ca"),
        ({"project_header": "a b"}, "provider.project_header"),
    ],
)
async def test_what_is_no_provider_is_refused_by_its_field(stubs: Stubs, fields: dict[str, Any], path: str) -> None:
    error = await refusal(create(stubs, **fields), Invalid)
    assert [field for field, _ in error.violations] == [path]
    assert "sk-" not in error.message


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:11434/v1", "http://models.lan", "https://models.lan:8443/v1"])
async def test_a_server_of_ones_own_is_one_where_the_setting_allows_it(stubs: Stubs, base_url: str) -> None:
    assert (await create(stubs, base_url=base_url, keys=[])).key_count == 0
    error = await refusal(update(stubs, "base_url", base_url="http://127.0.0.2"), Invalid)
    assert "BOATYARD_PROVIDER_ALLOW" in error.message


async def test_nobody_is_told_a_key_and_the_database_has_it_sealed(stubs: Stubs, tmp_path: Path) -> None:
    made = await create(stubs)
    seen = [
        made,
        await update(stubs, "order", order=3),
        await stubs.catalog.GetProvider(pb.GetProviderRequest(provider_id="claude")),
        await stubs.catalog.ListProviders(pb.ListProvidersRequest()),
        await update(stubs, "keys", keys=["sk-third-key"]),
    ]
    assert [made.key_count, seen[1].key_count, seen[-1].key_count] == [2, 2, 1], "an update keeps what it does not name"
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [key for key in [*KEYS, "sk-third-key"] if key in str(seen) or key.encode() in written] == []


async def test_the_environments_own_are_listed_last_and_hidden_by_name(tmp_path: Path) -> None:
    own = [ModelProvider(name=name, wire=ModelWire.CHAT, base_url="https://a.example", keys=("k",)) for name in "ab"]
    async with serving_catalog(tmp_path, own_providers=own) as stubs:
        await create(stubs, provider_id="a")
        await create(stubs, provider_id="z")
        answer = await stubs.catalog.ListProviders(pb.ListProvidersRequest())
        assert [(each.provider_id, each.is_implied, each.key_count) for each in answer.providers] == [
            ("a", False, 2),
            ("z", False, 2),
            ("b", True, 1),
        ]
        first = await stubs.catalog.ListProviders(pb.ListProvidersRequest(page_size=1))
        assert [each.provider_id for each in first.providers] == ["a"]


async def test_the_keys_of_a_deleted_provider_are_gone(stubs: Stubs, tmp_path: Path) -> None:
    await create(stubs)
    await stubs.catalog.DeleteProvider(pb.DeleteProviderRequest(provider_id="claude"))
    await refusal(update(stubs, "order", order=1), NotFound)
    engine = open_database(sqlite_url(tmp_path / "gateway.db"))
    async with engine.begin() as connection:
        assert (await connection.execute(text('SELECT "keys" FROM providers'))).scalars().all() == [""]
    await engine.dispose()
    assert (await create(stubs, keys=[])).key_count == 0


async def test_a_project_has_its_own_before_those_of_all_projects(stubs: Stubs) -> None:
    for project_id in ("harbour", "quay"):
        await stubs.catalog.CreateProject(pb.CreateProjectRequest(project=pb.Project(project_id=project_id)))
    for name, project_id, order in (("all", "", -5), ("late", "harbour", 2), ("soon", "harbour", 1), ("q", "quay", 0)):
        await create(stubs, provider_id=name, project_id=project_id, order=order)
    assert await listed(stubs, "harbour") == ["soon", "late", "all"]
    assert await listed(stubs, "default") == ["all"]
    assert await listed(stubs) == ["q", "soon", "late", "all"]
    first = await stubs.catalog.ListProviders(pb.ListProvidersRequest(page_size=3))
    rest = await stubs.catalog.ListProviders(pb.ListProvidersRequest(page_token=first.next_page_token))
    assert [provider.provider_id for provider in rest.providers] == ["all"]
    assert (await refusal(create(stubs, provider_id="all"), AlreadyExists)).reason == "PROVIDER_EXISTS"


async def test_whoever_is_for_some_projects_makes_none_for_all_and_sees_them(stubs: Stubs, tmp_path: Path) -> None:
    await create(stubs)
    for project_id in ("harbour", "quay"):
        await stubs.catalog.CreateProject(pb.CreateProjectRequest(project=pb.Project(project_id=project_id)))
    await create(stubs, provider_id="of-quay", project_id="quay")
    engine = open_database(sqlite_url(tmp_path / "gateway.db"))
    use_keys(engine, ring_of(engine.url))
    set_current_principal(Principal("ann", Role.ADMIN, frozenset({"harbour"})))
    try:
        with pytest.raises(PermissionDenied):
            wire.provider_from_proto(pb.Provider(**GOOD))
        assert wire.provider_from_proto(pb.Provider(**GOOD, project_id="harbour")).project_id == "harbour"
        page, _ = await CatalogStore(engine).page(PROVIDERS, CatalogFilter(), Page.parse(10, "", {}))
    finally:
        set_current_principal(OURSELVES)
        await engine.dispose()
    assert [provider.provider_id for provider in page] == ["claude"]
