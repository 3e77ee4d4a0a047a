"""The audit record on every kind of database: one suite for SQLite and PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.db.columns import microseconds
from services.common.db.paging import Page
from services.gateway.door.audit.model import AuditFilter, AuditRecord
from services.gateway.door.audit.store import AuditStore, remove_expired

FIRST = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
RECORD = AuditRecord(
    record_id="r0",
    time=FIRST,
    caller="ann",
    token_id="token-1",
    role="OPERATOR",
    origin="ipv4:127.0.0.1:1",
    cell_id="cell-1",
    forwarded_by="",
    method="JobService/CancelJob",
    resources=("job/job-1", "execution/exec-1"),
    status="OK",
    reason="",
    request_id="abc",
)
OTHERS = [
    replace(RECORD, record_id="r1", time=FIRST + timedelta(hours=1), caller="bob", resources=("job/job-10",)),
    replace(RECORD, record_id="r2", time=FIRST + timedelta(hours=2), method="TokenService/CreateToken", resources=()),
    replace(
        RECORD, record_id="r3", time=FIRST + timedelta(hours=3), status="PERMISSION_DENIED", reason="ROLE_REQUIRED"
    ),
]


async def test_records_are_found_again(engine: AsyncEngine) -> None:
    store = AuditStore(engine)
    await store.add([RECORD, *OTHERS])
    await store.add([RECORD])  # again, as if the first answer had been lost
    newest_first = [*reversed(OTHERS), RECORD]
    assert await store.page(AuditFilter(), Page()) == (newest_first, "")
    for wanted, ids in (
        (AuditFilter(caller="bob"), ["r1"]),
        (AuditFilter(method="TokenService/CreateToken"), ["r2"]),
        (AuditFilter(resource_id="job-1"), ["r3", "r0"]),
        (AuditFilter(resource_id="exec-1"), ["r3", "r0"]),
        (AuditFilter(resource_id="xec-1"), []),
        (AuditFilter(only_refused=True), ["r3"]),
        (AuditFilter(after_time=FIRST + timedelta(hours=1), before_time=FIRST + timedelta(hours=3)), ["r2", "r1"]),
    ):
        found, _ = await store.page(wanted, Page())
        assert [record.record_id for record in found] == ids, wanted
    found, following = await store.page(AuditFilter(), Page(size=3))
    assert (len(found), bool(following)) == (3, True)
    assert await store.page(AuditFilter(), Page(after=(microseconds(OTHERS[0].time), "r1"))) == ([RECORD], "")


async def test_old_records_are_forgotten(engine: AsyncEngine) -> None:
    store = AuditStore(engine)
    await store.add([RECORD, *OTHERS])
    async with engine.begin() as connection:
        assert await remove_expired(connection, FIRST + timedelta(hours=2)) == 2
    found, _ = await store.page(AuditFilter(), Page())
    assert [record.record_id for record in found] == ["r3", "r2"]
