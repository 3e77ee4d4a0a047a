"""Converts what is asked of costs, and the answer, between messages and values."""

from collections.abc import Iterator, Mapping
from typing import Final

from boatyard.gateway.v1 import cost_pb2 as pb

from services.agent.wire import USAGE
from services.common import display
from services.common.rpc.mapper import Mapper
from services.common.rpc.rules import Check, Violation
from services.gateway import scope
from services.gateway.cost.model import CostGroup, CostQuery, Costs, Dimension
from services.gateway.jobs.wire import label_selector_from_proto

_MOST_GROUPS: Final = 1000
_DEFAULT_GROUPS: Final = 100
_QUERY: Final = Mapper(CostQuery, pb.GetCostRequest, by_hand={"visible", "labels", "max_groups"})
_FIELDS: Final = {
    **{each: f"{each.lower()}_id" for each in (Dimension.PROJECT, Dimension.WORKER, Dimension.TEMPLATE, Dimension.JOB)},
    **{each: each.lower() for each in (Dimension.PROVIDER, Dimension.MODEL, Dimension.DAY)},
    Dimension.LABEL: "label_value",
}


def check_query(request: pb.GetCostRequest) -> Iterator[Violation]:
    """Yield what is wrong with what is asked for as a whole."""
    by_label = pb.GetCostRequest.DIMENSION_LABEL in request.group_by
    if by_label != bool(request.label_key):
        yield "label_key", "is required with DIMENSION_LABEL, and with nothing else"
    if request.last_day and request.last_day < request.first_day:
        yield "last_day", "must not be before `first_day`"


CHECKS: Final[Mapping[str, Check]] = {pb.GetCostRequest.DESCRIPTOR.full_name: check_query}
"""Rules for requests as a whole, by their full names."""


def query_from_proto(request: pb.GetCostRequest) -> CostQuery:
    """Read what is asked for, of the projects that the caller may see."""
    return _QUERY.from_proto(
        request,
        visible=scope.visible(),
        labels=tuple(map(label_selector_from_proto, request.labels)),
        max_groups=min(request.max_groups or _DEFAULT_GROUPS, _MOST_GROUPS),
    )


def costs_to_proto(costs: Costs) -> pb.GetCostResponse:
    """Write sums."""
    return pb.GetCostResponse(
        groups=map(_group_to_proto, costs.groups),
        total_groups=costs.total_groups,
        total=USAGE.to_proto(costs.total.usage),
        total_jobs=costs.total.jobs,
    )


def _group_to_proto(group: CostGroup) -> pb.CostGroup:
    key = {_FIELDS[dimension]: display.one_line(value) for dimension, value in group.key.items()}
    return pb.CostGroup(**key, jobs=group.jobs, usage=USAGE.to_proto(group.usage))
