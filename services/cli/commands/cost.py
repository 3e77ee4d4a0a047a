"""`boatyard cost`."""

from collections.abc import Sequence
from datetime import date
from typing import Final

import click
from boatyard.agent.v1 import usage_pb2
from boatyard.gateway.v1 import cost_pb2, job_pb2

from services.cli import humanize, options, selecting, shapes
from services.cli.clients import with_gateway
from services.cli.fields import choices
from services.cli.parsing import DAY
from services.cli.screen import Screen

_DIMENSIONS: Final = choices(cost_pb2.GetCostRequest.DESCRIPTOR.enum_types_by_name["Dimension"])
_LABEL: Final = "label:"
_FIELDS: Final = {
    **{name: f"{name}_id" for name in ("project", "worker", "template", "job")},
    **{name: name for name in ("provider", "model", "day")},
}
_NUMBERS: Final = ("JOBS", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "TOKENS", "COST")


@click.command("cost", short_help="Show what models were used for, and what that cost.")
@click.option(
    "--by",
    "by",
    type=options.TEXT,
    metavar="WHAT",
    multiple=True,
    help=f"Sum by {', '.join(name for name in _FIELDS)} or {_LABEL}KEY; may be repeated.",
)
@click.option(
    "--since",
    type=DAY,
    metavar="DAY",
    help="Only this day, in UTC, and later ones: such as 2030-01-31, or 7d for today and the six days before it.",
)
@click.option("--until", type=DAY, metavar="DAY", help="Only this day, in UTC, and earlier ones.")
@options.of_project("Only jobs")
@click.option("--worker", type=options.TEXT, metavar="ID", default="", help="Only jobs of this worker.")
@click.option("--template", type=options.TEXT, metavar="ID", default="", help="Only jobs of this template.")
@click.option("--provider", type=options.TEXT, metavar="NAME", default="", help="Only answers of this provider.")
@click.option("--model", type=options.TEXT, metavar="NAME", default="", help="Only answers of this model.")
@selecting.by_label
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=100, show_default=True, help="Show at most N."
)
@options.as_json
def command(
    *,
    by: tuple[str, ...],
    since: date | None,
    until: date | None,
    project: str,
    worker: str,
    template: str,
    provider: str,
    model: str,
    labels: tuple[job_pb2.LabelSelector, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Show what agents used of models, and what that cost: what cost most first, and the sum of all last.

    Every request through a model's door is counted, on all machines. A cost that is not known is "unknown"; with "≥",
    the price of some requests is not known, and they are not in the sum. CACHED is what was read from caches and
    written to them, TOKENS all of it.
    """
    dimensions, label_key = _dimensions(by)
    request = cost_pb2.GetCostRequest(
        project_id=project,
        worker_id=worker,
        template_id=template,
        provider=provider,
        model=model,
        labels=labels,
        first_day=since.isoformat() if since else "",
        last_day=until.isoformat() if until else "",
        group_by=[_DIMENSIONS[name] for name in dimensions],  # type: ignore[misc]
        label_key=label_key,
        max_groups=limit,
    )
    answer = with_gateway(lambda gateway: gateway.ask(gateway.costs.GetCost(request)))
    screen = Screen()
    if as_json:
        for group in answer.groups:
            screen.json({"kind": "cost", **_key_shape(group, dimensions, label_key), **_sums(group.jobs, group.usage)})
        screen.json({"kind": "total", "groups": answer.total_groups, **_sums(answer.total_jobs, answer.total)})
        return
    print_costs(screen, answer, dimensions, label_key)


def print_costs(screen: Screen, answer: cost_pb2.GetCostResponse, dimensions: Sequence[str], label_key: str) -> None:
    """Show sums to people, as a table with the total in its last row."""
    heads = [name.upper() for name in dimensions]
    if label_key:
        heads[dimensions.index("label")] = label_key
    rows = [[*_key(group, dimensions), *_cells(group.jobs, group.usage)] for group in answer.groups]
    if not dimensions or answer.total_groups > 1:
        rows.append(
            [*(["total", *[""] * len(dimensions)][: len(dimensions)]), *_cells(answer.total_jobs, answer.total)]
        )
    screen.table([*heads, *_NUMBERS], rows)
    if (hidden := answer.total_groups - len(answer.groups)) > 0:
        screen.say(f"{hidden} more: see --limit, or --json")


def _dimensions(by: Sequence[str]) -> tuple[list[str], str]:
    """Return by what is summed, and the key of the label. Raises click.BadParameter."""
    names, label_key = [], ""
    for each in by:
        if (key := each.removeprefix(_LABEL)) and key != each and not label_key:
            label_key = key
            names.append("label")
        elif each in _FIELDS and each not in names:
            names.append(each)
        else:
            what = f"{each!r} is given twice, or none of {', '.join(_FIELDS)} and {_LABEL}KEY"
            raise click.BadParameter(what, param_hint="--by")
    return names, label_key


def _key(group: cost_pb2.CostGroup, dimensions: Sequence[str]) -> list[str]:
    return [_value(group, name) or ("unknown" if name == "model" else "-") for name in dimensions]


def _value(group: cost_pb2.CostGroup, dimension: str) -> str:
    return str(getattr(group, _FIELDS.get(dimension, "label_value")))


def _key_shape(group: cost_pb2.CostGroup, dimensions: Sequence[str], label_key: str) -> shapes.Shape:
    key: shapes.Shape = {_FIELDS[name]: _value(group, name) or None for name in dimensions if name in _FIELDS}
    return key | ({"label": label_key, "label_value": group.label_value or None} if label_key else {})


def _sums(jobs: int, usage: usage_pb2.UsageSum) -> shapes.Shape:
    return {"jobs": jobs, **shapes.sums(usage)}


def _cells(jobs: int, usage: usage_pb2.UsageSum) -> list[str]:
    classes = (usage.input_tokens, usage.cache_read_tokens + usage.cache_write_tokens, usage.output_tokens)
    # Of jobs of earlier versions only the sum of all classes is known.
    shown = [f"{count:,}" if count or sum(classes) == usage.tokens else "unknown" for count in classes]
    return [f"{jobs:,}", f"{usage.requests:,}", *shown, f"{usage.tokens:,}", humanize.cost(usage)]
