"""Whether a job's agent has whom it asks of a model."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.engines import wire_of
from services.agent.providers import ModelProvider, ModelWire
from services.common.errors import FailedPrecondition, NotFound
from services.gateway.ledger.fleet import members
from services.gateway.schema.catalog import providers
from services.lifecycle.model.job_spec import JobSpec


async def check_providers(connection: AsyncConnection, spec: JobSpec, own: Sequence[ModelProvider] | None) -> None:
    """Check that an agent has the providers that it names, and one that its engine can ask.

    `own` are those of this cell's environment; None: they are not known. Raises NotFound (PROVIDER_NOT_FOUND),
    FailedPrecondition (MODEL_KEY_MISSING).
    """
    named, wire = spec.agent.providers, wire_of(spec.agent.chosen_engine.name)
    if not named and wire is None:
        return
    wires, disabled = await _stored(connection, spec.project_id)
    wires = {each.name: each.wire for each in own or ()} | wires
    for name in named:
        if name not in wires:
            raise NotFound("provider", name, because="its project has none of that name")
    if named and disabled.issuperset(named):
        raise NotFound("provider", named[0], because="it is disabled, and the job names no other")
    asked = [wires[name] for name in named or wires if name not in disabled]
    if wire is None or own is None or wire in asked or await _others_may_have_one(connection, named):
        return
    engine = spec.agent.chosen_engine.name
    raise FailedPrecondition(
        "MODEL_KEY_MISSING",
        f"engine {engine} asks a model by the wire {wire.lower()}, and the job has no provider of that wire: an"
        f" administrator makes one by `boatyard provider create NAME --wire {wire.lower()} --base-url URL --key @FILE`,"
        " or starts the cell with ANTHROPIC_API_KEY in its environment",
        "agent.engine",
    )


async def _stored(connection: AsyncConnection, project_id: str) -> tuple[dict[str, ModelWire], set[str]]:
    """Return the wires of the providers that a project's agents may have, by their names; and who is disabled."""
    columns = providers.c
    query = select(columns.provider_id, columns.wire, columns.disabled).where(
        columns.delete_time.is_(None), or_(columns.project_id == project_id, columns.project_id.is_(None))
    )
    rows = (await connection.execute(query)).all()
    return {row.provider_id: row.wire for row in rows}, {row.provider_id for row in rows if row.disabled}


async def _others_may_have_one(connection: AsyncConnection, named: Sequence[str]) -> bool:
    """True where other machines may run the job, and their environments may have a key that is not known here."""
    return not named and len(await members(connection)) > 1
