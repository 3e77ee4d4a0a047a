"""What a session offers to be set, and how: by modes and models, or by options of any name, as agents like it."""

from collections.abc import Iterator
from typing import Any

from services.execution.engines.command.readers.shapes import Json, an_object, objects, text


class NotOfferedError(Exception):
    """The agent does not offer a mode; the message says so."""


def changes(offered: Json, mode: str, model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (method, parameters) of the requests that set a mode and a model, empty for the agent's own.

    `offered` is the answer to the request that has made the session. A model that it does not offer may have been told
    in other ways. Raises NotOfferedError for a mode.
    """
    if mode:
        if (change := _mode(offered, mode)) is None:
            raise NotOfferedError(f"the agent does not offer mode {mode!r}")
        yield change
    if model and (change := _model(offered, model)) is not None:
        yield change


def _mode(offered: Json, mode: str) -> tuple[str, dict[str, Any]] | None:
    modes = objects(an_object(offered.get("modes")).get("availableModes"))
    if any(text(each.get("id")) == mode for each in modes):
        return "session/set_mode", {"modeId": mode}
    return _option(offered, "mode", mode)


def _model(offered: Json, model: str) -> tuple[str, dict[str, Any]] | None:
    if (change := _option(offered, "model", model)) is not None:
        return change
    models = objects(an_object(offered.get("models")).get("availableModels"))
    named = [text(each.get("modelId")) for each in models]
    return ("session/set_model", {"modelId": found}) if (found := _named(model, named)) else None


def _option(offered: Json, category: str, wanted: str) -> tuple[str, dict[str, Any]] | None:
    for option in objects(offered.get("configOptions")):
        if category not in (option.get("category"), option.get("id")):
            continue
        choices = objects(option.get("options"))
        grouped = [each for choice in choices for each in objects(choice.get("options"))]
        values = [text(each.get("value")) for each in (*choices, *grouped)]
        if value := _named(wanted, values):
            return "session/set_config_option", {"configId": text(option.get("id")), "value": value}
    return None


def _named(wanted: str, names: list[str]) -> str | None:
    """Return the name that is wanted; some agents put the provider's before it."""
    if wanted in names:
        return wanted
    return next((name for name in names if name.endswith(f"/{wanted}")), None)
