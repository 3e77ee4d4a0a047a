"""Assembles the service for hooks."""

from boatyard.gateway.v1 import hook_pb2
from boatyard.gateway.v1.hook_pb2_grpc import add_HookServiceServicer_to_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.common.rpc.server import Registration
from services.gateway.hooks import wire
from services.gateway.hooks.calls import CallStore
from services.gateway.hooks.servicer import DocumentOf, HookServicer
from services.gateway.hooks.store import HookStore
from services.lifecycle.hook_dry_run import HookDryRun
from services.lifecycle.nodes import Nodes
from services.lifecycle.webhooks import AllowList, Webhooks


def registration(engine: AsyncEngine, document_of: DocumentOf, nodes: Nodes, allowed: AllowList) -> Registration:
    """Return HookService; its dry runs call the addresses that `allowed` admits, and run commands on `nodes`."""
    return Registration(
        hook_pb2.DESCRIPTOR.services_by_name["HookService"].full_name,
        add_HookServiceServicer_to_server,
        HookServicer(HookStore(engine), CallStore(engine), allowed, HookDryRun(nodes, Webhooks(allowed)), document_of),
        wire.checks(allowed),
    )
