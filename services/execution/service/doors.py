"""Where an agent cannot ask its model: in a container that this service cannot enter, or without a provider."""

from dataclasses import replace

from services.common.errors import FailedPrecondition
from services.execution.engine import load
from services.execution.model import StartRequest
from services.execution.service.capabilities import NO_DOOR_IN_CONTAINERS
from services.sandbox.container_engines import Engine


def check_asked(request: StartRequest) -> None:
    """Raise FailedPrecondition (MODEL_KEY_MISSING) when its engine asks a model, and it has no provider to ask."""
    wire = load(request.plan.engine).speaks
    if wire is None or any(provider.wire is wire for provider in request.providers):
        return
    text = f"engine {request.plan.engine} asks a model by the wire {wire.lower()}, and has no provider of that wire"
    raise FailedPrecondition("MODEL_KEY_MISSING", text, request.execution_id)


def fitting(request: StartRequest, engine: Engine) -> StartRequest:
    """Return what can be started in a container of this engine: without a door that cannot be there, and not needed.

    An agent has providers because its project or its machine has some, and may ask no model. An engine that speaks to
    models itself does so outside of the container. Raises FailedPrecondition (DOOR_UNAVAILABLE).
    """
    plan = request.plan
    if not plan.has_door or engine.can_be_entered or load(plan.engine).speaks is not None:
        return request
    why = f"{NO_DOOR_IN_CONTAINERS} ({engine.name})"
    if request.needs_door:
        raise FailedPrecondition("DOOR_UNAVAILABLE", why, request.execution_id)
    return replace(
        request, plan=replace(plan, has_door=False, no_door=f"the model's door is left out: {why}"), providers=()
    )
