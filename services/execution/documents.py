"""Plans and results as JSON, in the run directory. Standard library only.

A service is upgraded while its runners run on, and what is installed may be changed below a service that runs: so a
runner and a service of different versions meet. Within one `FORMAT` fields may be added, each with a meaning for those
who do not know it: a reader leaves out what it does not know, and fills up what is missing. A change for which that is
not enough raises the number; a plan of a higher one is refused, a result is read as far as it is understood.
"""

from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from services.execution.model import Bounds, EndVerification, ModelUse, Plan, Result, State, TerminalSize, Vitals
from services.sandbox.spec import AllowList, Container, Limits, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

FORMAT = 1

_T = TypeVar("_T")


class NewerFormatError(Exception):
    """A plan was written by a later version of us."""

    def __init__(self, found: int) -> None:
        super().__init__(
            f"the plan has format {found}, and this version knows none above {FORMAT}: something older was installed"
            " while the service that wrote it ran. Start the service again"
        )


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Write a plan down, but for its task."""
    spec = plan.sandbox
    return {
        "format": FORMAT,
        "execution_id": plan.execution_id,
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
        "secret_names": plan.secret_names,
        "terminal": None if plan.terminal is None else asdict(plan.terminal),
    }


def plan_from_json(fields: dict[str, Any]) -> Plan:
    """Read a plan. Raises NewerFormatError."""
    if fields.get("format", FORMAT) > FORMAT:
        raise NewerFormatError(fields["format"])
    return Plan(
        fields["execution_id"],
        SandboxSpec(
            argv=tuple(_bytes(part) for part in fields["argv"]),
            cwd=Path(fields["cwd"]),
            mounts=tuple(_mount_from_json(mount) for mount in fields["mounts"]),
            environment={name: _bytes(value) for name, value in fields["environment"].items()},
            network=Network(fields["network"]),
            allow=AllowList(**{name: tuple(entries) for name, entries in fields["allow"].items()}),
            limits=Limits(**_known(Limits, fields["limits"])),
            tier=Tier(fields["tier"]),
            container=_maybe(Container, fields.get("container")),
        ),
        Bounds(**_known(Bounds, fields["bounds"])),
        secret_names=tuple(fields.get("secret_names", ())),
        terminal=_maybe(TerminalSize, fields.get("terminal")),
    )


def result_to_json(result: Result) -> dict[str, Any]:
    """Write a result down."""
    return {"format": FORMAT, **asdict(result)}


def result_from_json(fields: dict[str, Any]) -> Result:
    """Read a result, of whatever version: how a run ended is told as far as it is understood."""
    known = _known(Result, fields)
    verified = known.get("end_verified_by")
    return Result(
        **known
        | {
            "state": State(known["state"]),
            "model_use": _maybe(ModelUse, known.get("model_use")),
            "end_verified_by": EndVerification(verified) if verified in list(EndVerification) else None,
            "vitals": _maybe(Vitals, known.get("vitals")),
        }
    )


def _known(kind: type, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that this version knows."""
    return {field.name: fields[field.name] for field in dataclass_fields(kind) if field.name in fields}


def _maybe(kind: type[_T], fields: dict[str, Any] | None) -> _T | None:
    return None if fields is None else kind(**_known(kind, fields))


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
    return value.decode("latin-1")  # a character a byte, and back


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
