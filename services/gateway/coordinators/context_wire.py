"""What is needed to do a job, as a message: the words of the packages that own its parts, put together."""

from typing import Final

from boatyard.gateway.v1 import coordinator_pb2 as pb

from services.gateway.catalog.wire import project_to_proto, repository_to_proto, work_item_to_proto
from services.gateway.coordinators.model import WorkContext
from services.gateway.hooks.wire import hook_to_proto
from services.gateway.jobs.wire import job_to_proto

_MAX_BYTES: Final = 3 << 20  # of a message's 4 MiB, for what may be left out


def context_to_proto(context: WorkContext) -> pb.GetWorkContextResponse:
    """Write all that is needed to do a job."""
    order = context.view.spec
    job = job_to_proto(context.view)
    answer = pb.GetWorkContextResponse(
        project=project_to_proto(context.project),
        job=job,
        task=order.task,
        branch=order.branch,
        agent=job.spec.agent,
        hooks=map(hook_to_proto, context.hooks),
    )
    if context.work_item is not None:
        answer.work_item.CopyFrom(work_item_to_proto(context.work_item))
    if context.repository is not None:
        answer.repository.CopyFrom(repository_to_proto(context.repository))
        answer.repository.token = context.repository.token
    for item in map(work_item_to_proto, context.related):
        if answer.ByteSize() + item.ByteSize() > _MAX_BYTES:
            break
        answer.related_work_items.append(item)
    return answer
