"""The kinds of jobs, which are data: what a job of a kind must have, and the policy over which others are laid."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from services.common.errors import StartError
from services.common.ids import ID_RULE, is_id
from services.lifecycle.model.policy import Policy

DEFAULT_KIND: Final = "task"
WORK_ITEM_KIND: Final = "ticket"
"""The kind of the job that is made for a work item that is moved to in progress."""

_SHIPPED: Final = Path(__file__).with_name("kinds.toml")
_REQUIRABLE: Final = ("repository_id", "work_item_id", "worker_id", "files", "data")
_KEYS: Final = ("description", "required_fields", "required_data", "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A kind of job. `required_fields` are fields of JobSpec, the message and ours; `required_data` keys of `data`."""

    name: str
    description: str
    required_fields: tuple[str, ...] = ()
    required_data: tuple[str, ...] = ()
    policy: Policy[None] = field(default_factory=Policy)


Kinds = Mapping[str, JobKind]
_ADAPTER: Final[TypeAdapter[JobKind]] = TypeAdapter(JobKind)


def load_kinds(own: Path | None = None) -> Kinds:
    """Return all kinds by name: the shipped ones, and in their place those of an operator's file. Raises StartError."""
    kinds = _read(_SHIPPED)
    return kinds if own is None else {**kinds, **_read(own)}


def _read(file: Path) -> dict[str, JobKind]:
    try:
        tables = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartError(f"cannot read the kinds of jobs in {file}: {error}") from error
    return {name: _kind(file, name, table) for name, table in tables.items()}


def _kind(file: Path, name: str, table: Any) -> JobKind:  # noqa: ANN401 - any TOML
    def invalid(what: str) -> StartError:
        return StartError(f"{file}: the kind {name!r} {what}")

    if not is_id(name):
        raise invalid(f"must have a name of {ID_RULE}")
    if not isinstance(table, dict):
        raise invalid(f"must be a table with {', '.join(_KEYS)}")
    _refuse_unknown(table, _KEYS, invalid)
    policy = table.get("policy", {})
    if isinstance(policy, dict):
        _refuse_unknown(policy, [each.name for each in fields(Policy)], invalid)
    try:
        kind = _ADAPTER.validate_python({"name": name, **table})
    except ValidationError as error:
        first = error.errors()[0]
        raise invalid(f"has an invalid {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    _refuse_unknown(kind.required_fields, _REQUIRABLE, invalid)
    return kind


def _refuse_unknown(names: Any, known: Any, invalid: Any) -> None:  # noqa: ANN401 - names in any container
    if unknown := sorted(set(names) - set(known)):
        raise invalid(f"has unknown {', '.join(unknown)}: known are {', '.join(known)}")
