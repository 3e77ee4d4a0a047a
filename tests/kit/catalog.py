"""The gateway's catalogue, hooks and jobs (which no driver runs) behind a real server, on a database of their own."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from boatyard.gateway.v1 import catalog_pb2, catalog_pb2_grpc, hook_pb2_grpc, job_pb2, job_pb2_grpc

from services.agent.providers import ModelProvider
from services.common.db.engine import open_database, sqlite_url
from services.common.errors import ServiceError
from services.common.rpc.channel import open_channel
from services.common.rpc.draining import Draining
from services.common.rpc.server import Registration
from services.common.rpc.status import service_error
from services.gateway.catalog import update_wire
from services.gateway.catalog.servicer import CatalogServicer
from services.gateway.catalog.store import CatalogStore
from services.gateway.hooks import app as hooks
from services.gateway.jobs import submission_wire
from services.gateway.jobs.admission import Admission
from services.gateway.jobs.retries import Retries
from services.gateway.jobs.servicer import JobServicer
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.wire import job_document
from services.gateway.jobs.work_items import WorkItemJobs
from services.gateway.ledger.notifier import JobNotifier
from services.gateway.schema.sealing import use_keys
from services.gateway.wire.policy import CHECKS
from services.gateway.wire.requests import page_checks
from services.lifecycle.nodes import Nodes
from services.lifecycle.webhooks import AllowList
from tests.kit.databases import add_database, ring_of
from tests.kit.servers import TOKEN, serving

Error = TypeVar("Error", bound=ServiceError)


@dataclass(frozen=True)
class Stubs:
    catalog: catalog_pb2_grpc.CatalogServiceStub
    hooks: hook_pb2_grpc.HookServiceStub
    jobs: job_pb2_grpc.JobServiceStub


async def _never(*_: object) -> bool:
    """Tell of every snapshot that it is there: there is no cell that could have lost one."""
    return False


@asynccontextmanager
async def serving_catalog(
    directory: Path,
    token: str | None = TOKEN,
    providers_allowed: str = "",
    own_providers: Sequence[ModelProvider] = (),
) -> AsyncIterator[Stubs]:
    """Serve the catalogue kept in `directory`, which allows providers at some hosts; call it with `token`."""
    add_database(directory / "gateway.db", "gateway")
    engine = open_database(sqlite_url(directory / "gateway.db"))
    nowhere = open_channel("127.0.0.1:1")
    notifier = JobNotifier()
    admission = Admission(engine, notifier, "")
    allowed = AllowList.parse(providers_allowed, "BOATYARD_PROVIDER_ALLOW")
    catalog = CatalogServicer(CatalogStore(engine), WorkItemJobs(engine, admission).start, allowed, own_providers)
    store = JobStore(engine, notifier)
    jobs = JobServicer(admission, store, Retries(engine, notifier), notifier, draining=Draining(), is_gone=_never)

    async def document_of(job_id: str) -> bytes:
        return job_document(await store.job(job_id))

    registrations = [
        Registration(
            catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
            catalog_pb2_grpc.add_CatalogServiceServicer_to_server,
            catalog,
            {**update_wire.CHECKS, **CHECKS},
        ),
        hooks.registration(engine, document_of, Nodes(nowhere, nowhere, nowhere), AllowList()),
        Registration(
            job_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
            job_pb2_grpc.add_JobServiceServicer_to_server,
            jobs,
            {
                **CHECKS,
                **submission_wire.checks(admission.kinds),
                **page_checks(job_pb2.DESCRIPTOR.services_by_name["JobService"]),
            },
        ),
    ]
    try:
        use_keys(engine, ring_of(engine.url))
        async with serving(*registrations) as server, open_channel(server.address, token) as channel:
            yield Stubs(
                catalog_pb2_grpc.CatalogServiceStub(channel),
                hook_pb2_grpc.HookServiceStub(channel),
                job_pb2_grpc.JobServiceStub(channel),
            )
    finally:
        await nowhere.close()
        await engine.dispose()


async def refusal(call: Awaitable[object], kind: type[Error]) -> Error:
    """Make a call that must fail; return its error, which must be of the class `kind`."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = service_error(caught.value)
    assert isinstance(error, kind), (error.status, error.reason, error.message)
    return error
