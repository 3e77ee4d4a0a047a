"""Asks a machine whether its settings let a remote be used, before there is a job for it."""

from typing import Final

import grpc
from boatyard.git.v1 import git_pb2 as pb
from boatyard.git.v1.git_pb2_grpc import GitServiceStub

from services.common.errors import FailedPrecondition, Invalid
from services.common.rpc.status import service_error
from services.lifecycle.failures import explained
from services.lifecycle.nodes.client import Nodes

_ANSWER_SECONDS: Final = 2.0
_REFUSALS: Final = ("REMOTE_NOT_ALLOWED", "ADDRESS_NOT_ALLOWED")


async def remote_refusal(nodes: Nodes, repository_id: str, url: str) -> FailedPrecondition | None:
    """Return why no job could use a remote there; None when nothing is known against it, or the service is away."""
    request = pb.CheckRemoteRequest(remote=pb.Remote(repository_id=repository_id, url=url))
    try:
        await GitServiceStub(nodes.git).CheckRemote(request, timeout=_ANSWER_SECONDS)
    except grpc.aio.AioRpcError as raw:
        error = service_error(raw)
        if isinstance(error, (FailedPrecondition, Invalid)):
            failure = explained(error, "admission")
            if failure.reason in _REFUSALS:
                return FailedPrecondition(failure.reason, failure.message, "repository_id")
    return None
