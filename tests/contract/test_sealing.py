"""What is secret is sealed in the database: with a key that every cell needs, and that is replaced while they run."""

import asyncio
import os
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.agent.settings import AgentSettings
from services.common import program
from services.common.db.engine import open_database
from services.common.errors import StartError
from services.gateway.catalog.store import PROJECTS, REPOSITORIES, TEMPLATES, CatalogStore
from services.gateway.keys import keeper, store
from services.gateway.keys.file import KeyFile
from services.gateway.keys.keeper import keep_keys
from services.gateway.keys.store import KeyStore, unlock
from services.gateway.schema.cells import cells
from services.gateway.schema.clock import NOW
from services.gateway.schema.sealing import KEY_BYTES, KeyRing, SealError
from services.gateway.values.catalog import Repository, Template

TIME = datetime(2026, 1, 2, tzinfo=UTC)


class Cell:
    """A cell with an engine and a key file of its own."""

    def __init__(self, url: str, home: Path, cell_id: str) -> None:
        home.mkdir(exist_ok=True)
        self.engine = open_database(url)
        self.file = KeyFile(home / "keys")
        self.cell_id = cell_id
        self.catalog = CatalogStore(self.engine)
        self.keys: KeyStore

    async def start(self, given: KeyFile | None = None) -> None:
        ring = await unlock(self.engine, self.file, given.read() if given else ())
        self.keys = KeyStore(self.engine, ring, self.file, 60.0)
        row = {"cell_id": self.cell_id, "host": "h", "start_time": NOW, "beat_time": NOW}
        async with self.engine.begin() as connection:
            await connection.execute(insert(cells).values(row))

    async def keep_up(self) -> bool:
        """Do what a cell does every two seconds; return True when nothing is left to seal."""
        return await self.keys.keep_up(self.cell_id) and await self.keys.seal_all()

    async def token(self, repository_id: str) -> str:
        return (await self.catalog.get(REPOSITORIES, repository_id)).token


def repository(name: str, token: str) -> Repository:
    return Repository(
        repository_id=name, project_id="default", url=f"https://git.example/{name}", token=token, create_time=TIME
    )


async def stored(engine: AsyncEngine) -> list[str]:
    """Return what is in the columns of secrets, as the database has it."""
    columns = {
        "repositories": "token",
        "hooks": "secret",
        "providers": "keys",
        **dict.fromkeys(["projects", "templates", "workers", "work_items", "jobs"], "secrets"),
    }
    found = []
    async with engine.begin() as connection:
        for table, column in columns.items():
            rows = await connection.execute(text(f"SELECT {column} FROM {table} WHERE {column} <> ''"))
            found += list(rows.scalars())
    return found


@pytest.fixture
def url(gateway_url: str) -> str:
    return gateway_url


async def test_a_further_cell_needs_the_key_of_the_first(url: str, tmp_path: Path) -> None:
    first, second = Cell(url, tmp_path / "1", "one"), Cell(url, tmp_path / "2", "two")
    await first.start()
    value = secrets.token_hex(16)
    await first.catalog.create(REPOSITORIES, repository("r", value))
    assert (await stored(first.engine))[0].startswith("sealed:")
    assert first.file.path.stat().st_mode & 0o777 == 0o600

    with pytest.raises(StartError, match=r"--keys-file FILE \(BOATYARD_GATEWAY_KEYS_FILE\)"):
        await second.start()
    second.file.add(secrets.token_bytes(32))
    with pytest.raises(StartError, match="--keys-file"):
        await second.start()
    await second.start(given=first.file)
    assert await second.token("r") == value

    again = Cell(url, tmp_path / "2", "three")
    await again.start()  # the key was kept
    assert await again.token("r") == value
    for cell in (first, second, again):
        await cell.engine.dispose()


async def test_what_a_version_before_wrote_is_sealed_when_no_cell_of_it_is_left(url: str, tmp_path: Path) -> None:
    cell = Cell(url, tmp_path / "1", "one")
    await cell.start()
    value = secrets.token_hex(16)
    await cell.catalog.create(REPOSITORIES, repository("r", "by this version"))
    async with cell.engine.begin() as connection:
        await connection.execute(text("UPDATE repositories SET token = :value"), {"value": value})
        before = {"cell_id": "old", "host": "h", "start_time": NOW, "beat_time": NOW}
        await connection.execute(insert(cells).values(before))
    assert await cell.token("r") == value

    assert not await cell.keep_up()
    assert await stored(cell.engine) == [value]
    assert (await cell.keys.view()).waiting_for == ("old",)
    async with cell.engine.begin() as connection:
        await connection.execute(cells.delete().where(cells.c.cell_id == "old"))
    assert await cell.keep_up()

    assert await cell.token("r") == value
    assert [one.startswith("sealed:") for one in await stored(cell.engine)] == [True]
    if cell.engine.dialect.name == "sqlite":
        path = Path(str(cell.engine.url.database))
        assert [file for file in path.parent.glob(f"{path.name}*") if value.encode() in file.read_bytes()] == []
    await cell.engine.dispose()


async def test_the_key_is_replaced_while_two_cells_read_and_write(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BATCH", 3)
    one, two = Cell(url, tmp_path / "1", "one"), Cell(url, tmp_path / "2", "two")
    await one.start()
    await two.start(given=one.file)
    old_file = KeyFile(tmp_path / "stolen")
    old_file.add(one.file.read()[0])
    assert not await one.keep_up(), "the other has said nothing yet"
    assert await two.keep_up()
    assert await one.keep_up()
    values = {f"r{number}": secrets.token_hex(16) for number in range(8)}
    for name, value in values.items():
        await one.catalog.create(REPOSITORIES, repository(name, value))
    template = Template(
        template_id="t", project_id="default", create_time=TIME, agent=AgentSettings(secrets={"A": "abcdefgh"})
    )
    await one.catalog.create(TEMPLATES, template)
    await one.catalog.update(PROJECTS, "default", lambda project: replace(project, secrets={"B": "bcdefghi"}))

    view = await one.keys.begin_rotation()
    assert [key.state for key in view.keys] == ["NEXT", "CURRENT"]
    assert (await two.keys.begin_rotation()).keys == view.keys, "one at a time"
    assert not await one.keep_up(), "the other cell lacks the key"

    async def use(cell: Cell, other: Cell) -> None:
        for name, value in values.items():
            assert await cell.token(name) == value
            values[name] = secrets.token_hex(16)
            await other.catalog.update(REPOSITORIES, name, lambda row, name=name: replace(row, token=values[name]))
            assert await cell.token(name) == values[name]

    async def keep_up(cell: Cell) -> None:
        while not (await cell.keep_up() and len((await cell.keys.view()).keys) == 1):
            await asyncio.sleep(0.01)

    await asyncio.gather(use(one, two), keep_up(two), keep_up(one))

    (key,) = (await two.keys.view()).keys
    assert key.key_id == view.keys[0].key_id
    assert {one.split(":")[1] for one in await stored(one.engine)} == {key.key_id}
    assert await two.catalog.get(TEMPLATES, "t") == template
    assert (await two.catalog.get(PROJECTS, "default")).secrets == {"B": "bcdefghi"}
    three = Cell(url, tmp_path / "3", "three")
    with pytest.raises(StartError, match="--keys-file"):
        await three.start(given=old_file)
    for cell in (one, two, three):
        await cell.engine.dispose()


async def test_a_cell_that_is_alone_replaces_the_key_at_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_EVERY_SECONDS", 0.01)
    cell = Cell(url, tmp_path / "1", "one")
    await cell.start()
    await cell.catalog.create(REPOSITORIES, repository("r", "secret-of-r"))

    async def until_settled(key_id: str) -> None:
        while (view := await cell.keys.view()).waiting_for or [key.key_id for key in view.keys] != [key_id]:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(30), program.background_tasks({"keys": keep_keys(cell.keys, "one")}):
        await until_settled(cell.keys.current_key_id)
        rotating = await cell.keys.begin_rotation()
        await until_settled(rotating.keys[0].key_id)
    assert {one.split(":")[1] for one in await stored(cell.engine)} == {rotating.keys[0].key_id}
    await cell.engine.dispose()


async def test_a_cell_that_slept_through_a_rotation_ends(url: str, tmp_path: Path) -> None:
    awake, asleep = Cell(url, tmp_path / "1", "one"), Cell(url, tmp_path / "2", "two")
    await awake.start()
    await asleep.start(given=awake.file)
    async with awake.engine.begin() as connection:
        silent = update(cells).where(cells.c.cell_id == "two")
        await connection.execute(silent.values(beat_time=TIME))
    await awake.keys.begin_rotation()
    while len((await awake.keys.view()).keys) > 1:
        await awake.keep_up()
    with pytest.raises(StartError, match="--keys-file"):
        await asleep.keep_up()
    for cell in (awake, asleep):
        await cell.engine.dispose()


def test_a_sealed_text_is_of_its_place_and_its_key() -> None:
    ring = KeyRing([secrets.token_bytes(32)])
    sealed = ring.seal("tökén", "repositories.token")
    assert ring.open(sealed, "repositories.token") == "tökén"
    assert sealed != ring.seal("tökén", "repositories.token")
    for other, place in ((ring, "hooks.secret"), (KeyRing([secrets.token_bytes(32)]), "repositories.token")):
        with pytest.raises(SealError):
            other.open(sealed, place)
    with pytest.raises(SealError):
        ring.open(sealed[:-8] + ("AAAAAAA=" if sealed[-8:] != "AAAAAAA=" else "BBBBBBB="), "repositories.token")


@pytest.mark.parametrize("content", ["short", "no base64!", "AAAA"])
def test_a_file_that_has_no_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(StartError, match="32 bytes in base64"):
        KeyFile(path).read()
    path.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        KeyFile(path).read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_keys_that_another_user_has_put_there_are_refused(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys")
    file.add(bytes(KEY_BYTES))
    os.chown(file.path, 1234, 1234)
    with pytest.raises(StartError, match="belongs to user 1234"):
        file.read()
