"""Each service's migrations make exactly the tables that its code uses, on both databases."""

import importlib
import pkgutil
from types import ModuleType

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from services.common.db.engine import open_database
from services.common.db.migrate import migrate
from tests.kit.contract import ROOT

SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/migrations"))


def modules(package: ModuleType) -> list[ModuleType]:
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    wanted = [name for name in names if not name.endswith(".__main__") and ".migrations." not in name]
    return [importlib.import_module(name) for name in wanted]


@pytest.mark.parametrize("service", SERVICES)
async def test_migrations_and_metadata_agree(service: str, database_url: str) -> None:
    found = {
        id(value): value
        for module in modules(importlib.import_module(f"services.{service}"))
        for value in vars(module).values()
        if isinstance(value, MetaData)
    }
    (metadata,) = found.values()
    engine = open_database(database_url)
    try:
        await migrate(engine, f"services.{service}.migrations")
        async with engine.connect() as connection:
            difference = await connection.run_sync(
                lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
            )
    finally:
        await engine.dispose()
    # An index may exist in a migration only, because no statement of a store names it.
    assert [change for change in difference if change[0] != "remove_index"] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_revision_is_what_its_file_is_named_after(service: str) -> None:
    files = (ROOT / "services" / service / "migrations").glob("v[0-9]*.py")
    assert [file.name for file in files if f'revision = "{file.name[1:5]}"' not in file.read_text()] == []
