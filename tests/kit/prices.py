"""Makes the door's table of prices from the package genai-prices: `make prices`."""

import json
import re
from datetime import date
from importlib.metadata import version

from genai_prices import data, types

from services.agent.providers import ModelWire
from services.execution.door.prices import CLASSES, TABLE

FAMILIES = {"anthropic": ModelWire.MESSAGES, "openai": ModelWire.RESPONSES, "google": ModelWire.GEMINI}
SERVED_BY_MANY = re.compile("gpt-oss|gemma")
FIELDS = {name: f"{name}_mtok" for name in CLASSES}


def table() -> str:
    """Return the table as text."""
    families = {provider.id: provider.models for provider in data.providers if provider.id in FAMILIES}
    rows = {wire: [row for model in families[family] if (row := _row(model))] for family, wire in FAMILIES.items()}
    lines = [f'"{wire}": [\n' + ",\n".join(json.dumps(row) for row in models) + "\n]" for wire, models in rows.items()]
    source = json.dumps(f"genai-prices {version('genai-prices')}, dollars for a million tokens; by `make prices`")
    return f'{{"source": {source}, "models": {{\n' + ",\n".join(lines) + "\n}}\n"


def _row(model: types.ModelInfo) -> dict | None:
    conditional = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    if SERVED_BY_MANY.search(model.id):
        return None
    prices = []
    for one in conditional:
        if isinstance(one.constraint, types.TimeOfDateConstraint):  # nobody in the table has hours
            return None
        start = date.min if one.constraint is None else one.constraint.start_date
        found = {name: _price(getattr(one.prices, field)) for name, field in FIELDS.items()}
        found = {name: price for name, price in found.items() if price is not None}
        prices.insert(0, (start.isoformat(), found))  # of those that hold, the last one counts
    if "input" not in prices[0][1]:  # it is paid by pictures, or hours
        return None
    return {"names": _pattern(model.match), "prices": prices}


def _price(value: object) -> list | None:
    if isinstance(value, types.TieredPrices):
        return [float(value.base), *([tier.start, float(tier.price)] for tier in value.tiers)]
    return None if value is None else [float(value)]


def _pattern(clause: object) -> str:
    match clause:
        case types.ClauseStartsWith(starts_with=text):
            return f"{re.escape(text.lower())}.*"
        case types.ClauseEndsWith(ends_with=text):
            return f".*{re.escape(text.lower())}"
        case types.ClauseContains(contains=text):
            return f".*{re.escape(text.lower())}.*"
        case types.ClauseEquals(equals=text):
            return re.escape(text.lower())
        case types.ClauseRegex(regex=text):
            start, end = "" if text.startswith("^") else ".*", "" if text.endswith("$") else ".*"
            return f"{start}(?:{text.removeprefix('^').removesuffix('$')}){end}"
        case types.ClauseOr(or_=parts):
            return "(?:" + "|".join(map(_pattern, parts)) + ")"
        case types.ClauseAnd(and_=parts):
            return "".join(f"(?={_pattern(part)}$)" for part in parts) + ".*"
    raise ValueError(f"no pattern for {clause}")


if __name__ == "__main__":
    TABLE.write_text(table())
