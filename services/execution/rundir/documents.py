"""Plans and results as JSON, in the run directory. Standard library only.

A service is upgraded while its runners go on running, and another version may be installed while a service runs, so a
runner and a service of different versions meet. Within one `FORMAT`, fields may be added if a document also makes sense
without them: a reader leaves out fields that it does not know, and uses defaults for missing ones. A change for which
that is not enough raises the number. A plan of a higher number is refused; a result is read as far as it is understood.
"""

from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from services.agent import usage
from services.agent.recordings import Matching
from services.execution.model import Bounds, EndVerification, ModelUse, Plan, Result, State, TerminalSize, Vitals
from services.sandbox.spec import AllowList, Container, Limits, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

FORMAT = 1

# The engines of plans that name none: such plans are from a time when only one engine had a task.
_ENGINE_WITH_TASK, _ENGINE_WITHOUT = "anthropic", "command"

_T = TypeVar("_T")


class NewerFormatError(Exception):
    """A plan was written by a later version of Boatyard."""

    def __init__(self, plan_format: int) -> None:
        super().__init__(
            f"the plan has format {plan_format}, but this version knows none above {FORMAT}: an older version was"
            " installed while the service that wrote the plan was running. Start the service again"
        )


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Convert a plan, without its task."""
    spec = plan.sandbox
    return {
        "format": FORMAT,
        "execution_id": plan.execution_id,
        "engine": plan.engine,
        "bounds": asdict(plan.bounds),
        "argv": [_text(part) for part in spec.argv],
        "cwd": str(spec.cwd),
        "mounts": [_mount_to_json(mount) for mount in spec.mounts],
        "environment": {name: _text(value) for name, value in spec.environment.items()},
        "network": spec.network,
        "allow": asdict(spec.allow),
        "limits": asdict(spec.limits),
        "tier": spec.tier,
        "container": None if spec.container is None else asdict(spec.container),
        "home": _optional(spec.home),
        "secret_names": plan.secret_names,
        "redacted": {name: _text(value) for name, value in plan.redacted.items()},
        "has_door": plan.has_door,
        "records": plan.records,
        "replay": plan.replay,
        "no_door": plan.no_door,
        "reserves_model_use": plan.reserves_model_use,
        "heeds_model_gates": plan.heeds_model_gates,
        "terminal": None if plan.terminal is None else asdict(plan.terminal),
    }


def engine_of(fields: dict[str, Any], *, has_task: bool) -> str:
    """Return the engine of a plan; if the plan names none, it follows from whether there is a task beside it."""
    engine: str = fields.get("engine", _ENGINE_WITH_TASK if has_task else _ENGINE_WITHOUT)
    return engine


def plan_from_json(fields: dict[str, Any], task: dict[str, Any] | None = None) -> Plan:
    """Read a plan, with the task beside it. Raises NewerFormatError."""
    if fields.get("format", FORMAT) > FORMAT:
        raise NewerFormatError(fields["format"])
    return Plan(
        fields["execution_id"],
        engine_of(fields, has_task=task is not None),
        SandboxSpec(
            argv=tuple(_bytes(part) for part in fields["argv"]),
            cwd=Path(fields["cwd"]),
            mounts=tuple(_mount_from_json(mount) for mount in fields["mounts"]),
            environment={name: _bytes(value) for name, value in fields["environment"].items()},
            network=Network(fields["network"]),
            allow=AllowList(**{name: tuple(entries) for name, entries in fields["allow"].items()}),
            limits=Limits(**_known_fields(Limits, fields["limits"])),
            tier=Tier(fields["tier"]),
            container=_optional_from_json(Container, fields.get("container")),
            home=_optional_path(fields.get("home")),
        ),
        Bounds(**_known_fields(Bounds, fields["bounds"])),
        task=task,
        secret_names=tuple(fields.get("secret_names", ())),
        terminal=_optional_from_json(TerminalSize, fields.get("terminal")),
        redacted={name: _bytes(value) for name, value in fields.get("redacted", {}).items()},
        has_door=fields.get("has_door", False),
        records=fields.get("records", False),
        replay=Matching(fields["replay"]) if fields.get("replay") else None,
        no_door=fields.get("no_door", ""),
        reserves_model_use=fields.get("reserves_model_use", False),
        heeds_model_gates=fields.get("heeds_model_gates", False),
    )


def result_to_json(result: Result) -> dict[str, Any]:
    """Convert a result."""
    return {"format": FORMAT, **asdict(result)}


def result_from_json(fields: dict[str, Any]) -> Result:
    """Read a result of any version, as far as this version understands it."""
    known = _known_fields(Result, fields)
    verified = known.get("end_verified_by")
    return Result(
        **known
        | {
            "state": State(known["state"]),
            "model_use": _model_use_from_json(known.get("model_use")),
            "end_verified_by": EndVerification(verified) if verified in list(EndVerification) else None,
            "vitals": _optional_from_json(Vitals, known.get("vitals")),
        }
    )


def _model_use_from_json(fields: dict[str, Any] | None) -> ModelUse | None:
    if fields is None:
        return None
    return ModelUse(**_known_fields(ModelUse, fields) | {"usage": usage.from_json(fields.get("usage", ()))})


def _known_fields(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows."""
    return {field.name: fields[field.name] for field in dataclass_fields(kind) if field.name in fields}


def _optional_from_json(kind: type[_T], fields: dict[str, Any] | None) -> _T | None:
    return None if fields is None else kind(**_known_fields(kind, fields))


def _mount_to_json(mount: Mount | Overlay) -> dict[str, Any]:
    if isinstance(mount, Overlay):
        return {
            "lowers": [str(lower) for lower in mount.lowers],
            "upper": _optional(mount.upper),
            "work": _optional(mount.work),
            "target": str(mount.target),
            "mounted": _optional(mount.mounted),
            "holder": mount.holder,
        }
    return {"source": str(mount.source), "target": str(mount.target or mount.source), "access": mount.access}


def _mount_from_json(fields: dict[str, Any]) -> Mount | Overlay:
    if "lowers" in fields:
        return Overlay(
            lowers=tuple(Path(lower) for lower in fields["lowers"]),
            upper=_optional_path(fields["upper"]),
            work=_optional_path(fields["work"]),
            target=Path(fields["target"]),
            mounted=_optional_path(fields["mounted"]),
            holder=fields["holder"],
        )
    return Mount(Path(fields["source"]), Path(fields["target"]), MountAccess(fields["access"]))


def _optional(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _optional_path(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # one character for each byte, so any bytes survive the way through JSON


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
