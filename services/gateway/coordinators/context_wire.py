"""Convert a job's work context to a message, with the conversions of the packages that own its parts."""

from typing import Final

from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.common.rpc.mapper import Mapper
from services.common.text import lossy
from services.gateway.catalog.wire import PROJECT, REPOSITORY, WORK_ITEM
from services.gateway.coordinators.model import WorkContext, WorkItemTitle
from services.gateway.hooks.wire import hook_to_proto
from services.gateway.jobs.wire import job_to_proto
from services.gateway.values.catalog import WorkItemState

_TITLE: Final = Mapper(WorkItemTitle, pb.WorkItemTitle)
_FIELDS: Final = {
    WorkItemState.TODO: "backlog",
    WorkItemState.IN_PROGRESS: "in_progress",
    WorkItemState.REVIEW: "in_review",
    WorkItemState.DONE: "done",
}
_MAX_BYTES: Final = 3 << 20  # of a message's 4 MiB; related work items that exceed it are left out


def context_to_proto(context: WorkContext) -> pb.GetWorkContextResponse:
    """Write everything that is needed to do a job."""
    order = context.view.spec
    job = job_to_proto(context.view)
    response = pb.GetWorkContextResponse(
        project=PROJECT.to_proto(context.project),
        job=job,
        task=order.task,
        branch=lossy(order.branch),
        agent=job.spec.agent,
        hooks=map(hook_to_proto, context.hooks),
    )
    response.agent.secrets.update(context.secrets)
    for state, items in context.by_state.items():
        getattr(response, _FIELDS[state]).extend(map(_TITLE.to_proto, items))
    if context.work_item is not None:
        response.work_item.CopyFrom(WORK_ITEM.to_proto(context.work_item))
    if context.repository is not None:
        response.repository.CopyFrom(REPOSITORY.to_proto(context.repository, token=context.repository.token))
    for item in map(WORK_ITEM.to_proto, context.related):
        if response.ByteSize() + item.ByteSize() > _MAX_BYTES:
            break
        response.related_work_items.append(item)
    return response
