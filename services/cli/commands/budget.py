"""`boatyard budget`."""

from boatyard.gateway.v1 import budget_pb2

from services.cli.budgets import AMOUNTS, in_words, spent_in_words
from services.cli.catalogue import ResourceType, resource_commands
from services.cli.flags import Flag
from services.cli.parsing import BUDGET


def _spent(budget: budget_pb2.Budget) -> str:
    """Return what is spent, by whoever has spent most where several have."""
    if not budget.uses:
        return spent_in_words(budget_pb2.Spending(), budget.limits)
    most = budget.uses[0]
    whose = f"{most.spender}: " if most.spender != budget.project_id else ""
    return whose + spent_in_words(most.spent, budget.limits)


def _left(budget: budget_pb2.Budget) -> str:
    return in_words(budget.uses[0].left if budget.uses else budget.limits)


KIND = ResourceType(
    "Budget",
    "Budgets",
    "budget",
    "budget",
    [
        Flag("--limit", "limits", "What may be spent, such as 20 (dollars) or 5,200000tokens.", AMOUNTS, BUDGET),
        Flag("--scope", "scope", "Whose spending is counted together (default: project).", is_fixed=True),
        Flag("--period", "period", "When it is whole again, in UTC (default: none, never).", is_fixed=True),
        Flag("--worker", "worker_id", "The one worker whose jobs it binds (default: all jobs).", "ID", is_fixed=True),
        Flag("--project", "project_id", "The project whose jobs it binds (default: default).", "ID", is_fixed=True),
    ],
    ["budget_id", "project_id", "scope", "period", "limits", "spent", "left"],
    on_change="It holds from the next request to a model on.",
    on_delete=", with what was counted of it",
    messages=budget_pb2,
    service="budgets",
    cells={"limits": lambda budget: in_words(budget.limits), "spent": _spent, "left": _left},
)

command = resource_commands(
    KIND,
    "Manage budgets: what the agents of a project may spend on models.\n\nWhat one job may spend is also said by"
    " `boatyard run --budget`.",
)
