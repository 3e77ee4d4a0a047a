"""Puts hooks together."""

from boatyard.gateway.v1 import hook_pb2
from boatyard.gateway.v1.hook_pb2_grpc import add_HookServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.server import Registration
from services.gateway.hooks.calls import CallStore
from services.gateway.hooks.servicer import HookServicer
from services.gateway.hooks.store import HookStore
from services.gateway.jobs.store import JobStore
from services.gateway.jobs.wire import document
from services.lifecycle.hook_dry_run import HookDryRun
from services.lifecycle.nodes import Nodes
from services.lifecycle.webhooks import AllowList, Webhooks


def registration(engine: AsyncEngine, jobs: JobStore, nodes: Nodes, allowed: AllowList) -> Registration:
    """Return HookService, which calls what `allowed` admits, and runs commands on these nodes."""

    async def document_of(job_id: str) -> bytes:
        return document(await jobs.job(job_id))

    return Registration(
        hook_pb2.DESCRIPTOR.services_by_name["HookService"].full_name,
        add_HookServiceServicer_to_server,
        HookServicer(HookStore(engine), CallStore(engine), allowed, HookDryRun(nodes, Webhooks(allowed)), document_of),
    )
