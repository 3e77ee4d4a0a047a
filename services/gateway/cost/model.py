"""What is asked of the cost of models, and the answer."""

import enum
from dataclasses import dataclass

from services.agent.usage import UsageSum
from services.gateway.values.jobs import LabelSelector


class Dimension(enum.StrEnum):
    """By what costs are summed. The names are those of the contract, without prefix."""

    PROJECT = "PROJECT"
    WORKER = "WORKER"
    TEMPLATE = "TEMPLATE"
    JOB = "JOB"
    PROVIDER = "PROVIDER"
    MODEL = "MODEL"
    DAY = "DAY"
    LABEL = "LABEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuery:
    """What to sum, by what, and how many sums to return. Empty fields do not filter; days are inclusive.

    `visible` are the caller's projects; None means all.
    """

    visible: frozenset[str] | None = None
    project_id: str = ""
    worker_id: str = ""
    template_id: str = ""
    provider: str = ""
    model: str = ""
    labels: tuple[LabelSelector, ...] = ()
    first_day: str = ""
    last_day: str = ""
    group_by: tuple[Dimension, ...] = ()
    label_key: str = ""
    max_groups: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CostGroup:
    """One sum. Of what it is the sum says `key`, for the dimensions that were asked for; `jobs` counts those in it."""

    key: dict[Dimension, str]
    jobs: int
    usage: UsageSum


@dataclass(frozen=True, slots=True)
class Costs:
    """The groups, first those that cost most (of the latest days), how many there are, and the sum of all."""

    groups: tuple[CostGroup, ...]
    total_groups: int
    total: CostGroup
