"""Looks up jobs, executions, checkpoints and snapshots by the ids that people type."""

from boatyard.gateway.v1 import checkpoint_pb2, job_pb2, runtime_pb2
from boatyard.git.v1 import git_pb2
from boatyard.workspace.v1 import workspace_pb2

from services.cli import shapes
from services.cli.clients import Gateway
from services.common.errors import NotFound


async def get_job(gateway: Gateway, job_id: str) -> job_pb2.Job:
    """Return a job. Raises NotFound."""
    return (await gateway.ask(gateway.jobs.GetJob(job_pb2.GetJobRequest(job_id=job_id)))).job


async def get_checkpoint(gateway: Gateway, id_: str) -> checkpoint_pb2.Checkpoint:
    """Return the checkpoint of this id, or the last one of the job of this id. Raises NotFound."""
    try:
        request = checkpoint_pb2.GetCheckpointRequest(checkpoint_id=id_)
        return (await gateway.ask(gateway.checkpoints.GetCheckpoint(request))).checkpoint
    except NotFound:
        pass
    list_request = checkpoint_pb2.ListCheckpointsRequest(job_id=id_, page_size=1)
    checkpoints = (await gateway.ask(gateway.checkpoints.ListCheckpoints(list_request))).checkpoints
    if not checkpoints:
        raise NotFound(
            "checkpoint", id_, because="no job of that id has asked anything; `boatyard checkpoints` lists what waits"
        )
    return checkpoints[0]


async def get_snapshot(gateway: Gateway, snapshot_id: str) -> git_pb2.Snapshot:
    """Return a snapshot. Raises NotFound."""
    request = runtime_pb2.GetSnapshotRequest(snapshot_id=snapshot_id)
    return (await gateway.ask(gateway.runtime.GetSnapshot(request))).snapshot


async def get_workspace(gateway: Gateway, workspace_id: str) -> workspace_pb2.Workspace:
    """Return a workspace. Raises NotFound."""
    request = runtime_pb2.GetWorkspaceRequest(workspace_id=workspace_id)
    return (await gateway.ask(gateway.runtime.GetWorkspace(request))).workspace


async def get_execution(gateway: Gateway, execution_id: str) -> runtime_pb2.Execution:
    """Return an execution. Raises NotFound."""
    request = runtime_pb2.GetExecutionRequest(execution_id=execution_id)
    return (await gateway.ask(gateway.runtime.GetExecution(request))).execution


async def get_job_or_execution(gateway: Gateway, id_: str) -> job_pb2.Job | runtime_pb2.Execution:
    """Return the job or the execution with this id. Raises NotFound."""
    try:
        return await get_job(gateway, id_)
    except NotFound:
        pass
    try:
        return await get_execution(gateway, id_)
    except NotFound:
        raise NotFound("job or execution", id_) from None


async def execution_id_of(gateway: Gateway, id_: str) -> str:
    """Return the id of the execution with this id, or of the last attempt of the job with this id. Raises NotFound."""
    target = await get_job_or_execution(gateway, id_)
    if isinstance(target, runtime_pb2.Execution):
        return target.execution_id
    execution_id = shapes.last_execution(target)
    if execution_id is None:
        raise NotFound("execution of job", id_)
    return execution_id
