"""What happens around an agent's work: what kinds, templates, workers, items and jobs say of it, and what holds."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, Final, Generic, Never, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator

from services.agent.settings import overlay
from services.common.reasons import REASONS, Retried
from services.lifecycle.model.budgets import UNLIMITED, BudgetLimits
from services.lifecycle.model.checkpoint import APPROVAL_STAGES
from services.lifecycle.model.states import Incomplete, Publish, Retention, RetryFrom
from services.lifecycle.model.value import Recorded

RETRY_ON: Final = tuple(row.reason for row in REASONS.values() if row.retried_by_default)
"""Failures after which a job is tried again unless its policy says otherwise: of machines and networks, not of work."""

NEVER_RETRIED: Final = frozenset(row.reason for row in REASONS.values() if row.retried is Retried.NEVER) | {"CANCELLED"}
"""Reasons that are a decision, or for which a retry would cost the same again."""


@dataclass(frozen=True, slots=True)
class Checkpoints(Recorded):
    """The stages before which a person is asked. An empty list, too, hides that of the layer below."""

    before: tuple[str, ...] = ()


Open_co = TypeVar("Open_co", bound=None, covariant=True)
_OPEN: Final[Any] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Recorded, Generic[Open_co]):
    """What happens around an agent's work, with the names and units of the contract, which explains each field.

    `Policy[None]` is a layer: None and an empty list leave a field to the layer below. `Policy[Never]` is complete: no
    field can be left open. It comes of `complete_policy` alone. An empty `verify_command` means no check.
    """

    verify_command: str | Open_co = _OPEN
    verify_timeout: timedelta | Open_co = _OPEN
    publish: Publish | Open_co = _OPEN
    retention: Retention | Open_co = _OPEN
    checkpoints: Checkpoints | Open_co = _OPEN
    checkpoint_timeout: timedelta | Open_co = _OPEN
    max_extra_rounds: int | Open_co = _OPEN
    agent_may_ask: bool | Open_co = _OPEN
    max_attempts: int | Open_co = _OPEN
    retry_on: tuple[str, ...] = ()
    retry_from: RetryFrom | Open_co = _OPEN
    artifacts: tuple[str, ...] = ()
    incomplete: Incomplete | Open_co = _OPEN
    leave_out: tuple[str, ...] = ()
    git_lfs: bool | Open_co = _OPEN
    budget: BudgetLimits | Open_co = _OPEN


DEFAULT_POLICY: Final[Policy[Never]] = Policy(
    verify_command="",
    verify_timeout=timedelta(minutes=10),
    publish=Publish.PUSH,
    retention=Retention.KEEP_FAILED,
    checkpoints=Checkpoints(),
    checkpoint_timeout=timedelta(days=1),
    max_extra_rounds=5,
    agent_may_ask=False,
    max_attempts=3,
    retry_on=RETRY_ON,
    retry_from=RetryFrom.BASE,
    incomplete=Incomplete.FAIL,
    git_lfs=True,
    budget=UNLIMITED,
)
"""What holds where no layer says anything."""


def complete_policy(layers: Policy[None]) -> Policy[Never]:
    """Lay merged layers over the defaults. Checkpoints are in the order of the stages."""
    policy = cast("Policy[Never]", overlay(DEFAULT_POLICY, layers))  # which leave nothing open
    stages = tuple(stage for stage in APPROVAL_STAGES if stage in policy.checkpoints.before)
    return replace(policy, checkpoints=Checkpoints(stages))


def _from_list(document: Any) -> Any:  # noqa: ANN401 - JSON, or a policy
    """Read the checkpoints of a job's policy as they were stored until 29 November 2026."""
    if isinstance(document, dict) and isinstance(stages := document.get("checkpoints"), list):
        return {**document, "checkpoints": {"before": stages}}
    return document


StoredPolicy = Annotated[Policy[Never], BeforeValidator(_from_list), AfterValidator(complete_policy)]
"""The type of a field for pydantic: a job's policy, in which what is missing has its default."""
