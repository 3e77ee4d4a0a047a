"""Settings that are stored as JSON: layers in the catalogue, and the merged ones in jobs.

Until 29 November 2026 all of them were flat, the engine was a name among them, tiers and networks in layers were in
upper case, and jobs had their limits in an object of their own. Such rows are read, and written in the form of today.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from services.agent.settings import AgentSettings

_ENGINE_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "command": {"command": "line", "prompt_delivery": "prompt_delivery", "terminal": "terminal"},
    "anthropic": {"max_tokens": "max_tokens", "ask_before": "ask_before"},
}
"""By engine: the names in the flat form, and the names of today."""
_FLAT: Final = frozenset(name for names in _ENGINE_FIELDS.values() for name in names)


def _from_flat(document: Any) -> Any:  # noqa: ANN401 - JSON, or settings
    if not isinstance(document, dict):
        return document
    flat = {name: value for name, value in document.items() if value is not None}
    if "limits" in flat:  # a job's, where an empty text meant none
        limits = flat.pop("limits")
        flat = {name: value for name, value in {**flat, **limits}.items() if value not in (None, "")}
    for name in ("sandbox_tier", "network"):
        if isinstance(flat.get(name), str):
            flat[name] = flat[name].lower()
    own = {name: flat.pop(name) for name in _FLAT & flat.keys()}
    if not isinstance(flat.get("engine"), dict) and (engine := flat.pop("engine", None) or _engine_of(own)):
        names = _ENGINE_FIELDS[engine]
        flat["engine"] = {"name": engine, **{names[name]: value for name, value in own.items() if name in names}}
    return flat


def _engine_of(own: Mapping[str, Any]) -> str | None:
    """Return the engine that a layer without an engine's name is for: the first whose settings it has."""
    given = {name for name, value in own.items() if value != []}
    return next((engine for engine, names in _ENGINE_FIELDS.items() if given & names.keys()), None)


StoredAgentSettings = Annotated[AgentSettings, BeforeValidator(_from_flat)]
"""The type of a field or column for pydantic."""
