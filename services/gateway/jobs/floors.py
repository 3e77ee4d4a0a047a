"""Which floors bind a job, and what of its submission they do not allow."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.agent.settings import AgentSettings
from services.common.errors import FailedPrecondition, NotFound, PermissionDenied
from services.gateway.catalog.store import PROJECTS, TEMPLATES
from services.gateway.values.catalog import Project, Template
from services.gateway.values.principal import Role, current_principal
from services.lifecycle.model.floor import (
    NO_FLOOR,
    BindingFloor,
    Floor,
    bound_agent,
    bound_policy,
    complaints,
    exceeded,
    joined,
    undercut,
)
from services.lifecycle.model.job_spec import JobSpec
from services.lifecycle.model.policy import Policy

NOTHING: Final[Policy[None]] = Policy()
MAX_VERIFY_BYTES: Final = 64 << 10


def floors_of(project: Project, template: Template | None) -> tuple[BindingFloor, ...]:
    """Return the floors of a project and a template as they are now, the project's first."""
    floors = [(f"project/{project.project_id}", project.floor)]
    if template is not None:
        floors.append((f"template/{template.template_id}", template.floor))
    return tuple(BindingFloor(set_by, floor) for set_by, floor in floors if floor != NO_FLOOR)


def check_waiver() -> None:
    """Raise PermissionDenied (ROLE_REQUIRED) unless the caller may have a job without floors."""
    if current_principal().role is not Role.ADMIN:
        raise PermissionDenied(
            "only an administrator may have a job without the floors of its project and template (`waive_floors`)",
            reason="ROLE_REQUIRED",
        )


def bound(spec: JobSpec, floors: Sequence[BindingFloor]) -> JobSpec:
    """Bind a job to floors, as far as it is not yet. The last one's verify command is wrapped by the others'."""
    agent, policy = spec.agent, spec.policy
    for each in reversed([each for each in floors if each not in spec.floors]):
        agent, policy = bound_agent(agent, each.floor), bound_policy(policy, each.floor)
    return replace(spec, agent=agent, policy=policy, floors=joined(spec.floors, floors))


def violations(spec: JobSpec, agent: AgentSettings, policy: Policy[None]) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for what floors do not allow of a bound job: `agent` and `policy` are what it set itself."""
    for each in spec.floors:
        of_agent = (*complaints(spec.agent, each.floor), *exceeded(agent, each.floor))
        found = [(f"agent.{name}", rule) for name, rule in of_agent]
        found += [(f"policy.{name}", rule) for name, rule in undercut(policy, each.floor)]
        yield from ((name, f"{rule}: the floor of {each.set_by} wants it") for name, rule in found)
    if spec.floors and len(spec.policy.verify_command.encode()) > MAX_VERIFY_BYTES:
        yield "policy.verify_command", "must be at most 64 KiB together with those of floors"


def tries_violations(policy: Policy[None], tries: Floor) -> Iterator[tuple[str, str]]:
    """Yield (field, rule) for attempts and rounds that a job asks for, and the gateway's settings do not allow."""
    for name, rule in undercut(policy, tries):
        yield f"policy.{name}", f"{rule}: BOATYARD_GATEWAY_{name.upper()} wants it"


async def bound_again(connection: AsyncConnection, spec: JobSpec, asked: Policy[None] = NOTHING) -> JobSpec:
    """Bind a job that is to be retried to the floors of now, unless an administrator retries one without floors.

    `asked` is what the retry sets anew of its policy. Raises FailedPrecondition (BELOW_FLOOR) when floors do not allow
    that, or its tier or its network.
    """
    if spec.waive_floors and current_principal().role is Role.ADMIN:
        return spec
    project = await PROJECTS.get(connection, spec.project_id)
    template = None
    with suppress(NotFound):  # it was deleted since; what its floor was still binds the job
        template = await TEMPLATES.get(connection, spec.template_id) if spec.template_id else None
    again = bound(replace(spec, waive_floors=False), floors_of(project, template))
    for each in again.floors:
        for name, rule in (*complaints(again.agent, each.floor), *undercut(asked, each.floor)):
            text = f"the job's {name} {rule} by the floor of {each.set_by}: submit it again with another"
            raise FailedPrecondition("BELOW_FLOOR", text, spec.job_id, metadata={"set_by": each.set_by})
    return again
