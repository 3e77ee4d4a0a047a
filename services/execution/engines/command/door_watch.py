"""The model's door of a program, if it has one: opened with it, made again when it was killed, and closed with it."""

import math
import selectors
import time
from dataclasses import replace

from services.execution.door.child import ModelDoor
from services.execution.door.outages import START_PATIENCE_S, Trouble
from services.execution.engine import RunContext
from services.execution.engines.command.sources import Sources
from services.execution.processes import orphans
from services.sandbox.spec import SandboxSpec, Tier


class DoorWatch:
    """Stays with the door of one run, if it has one."""

    def __init__(self, context: RunContext, selector: selectors.BaseSelector, sources: Sources) -> None:
        """The door is in no control group of the program: the limits are for the program alone."""
        self._context = context
        self._door = _door(context) if context.providers else None
        self._trouble: Trouble | None = None
        self._refused_at = math.inf
        self._writer = context.writer
        self._selector = selector
        self._sources = sources
        self._leave = (lambda: None) if context.group is None else context.group.leave

    @property
    def secrets(self) -> dict[str, bytes]:
        """What must not appear in events, by name."""
        return {} if self._door is None else self._door.secrets

    @property
    def trouble(self) -> Trouble | None:
        """Why models do not answer; None while they do, and before one was asked."""
        return self._trouble

    @property
    def ends_at(self) -> float:
        """When to end a program that needs its model, on the monotonic clock: at the end of an outage's patience.

        One that is refused has some seconds, in which it may ask another model, or end by itself.
        """
        if self._trouble is None or not self._trouble.is_over:
            return math.inf
        return self._refused_at + START_PATIENCE_S if self._trouble.is_refusal else 0.0

    def prepared(self, spec: SandboxSpec) -> tuple[SandboxSpec, ModelDoor | None]:
        """Return a sandbox whose program is told of the door, and the door, to be opened in it. Raises OSError."""
        if self._door is None:
            return spec, None
        if spec.tier is Tier.NONE:
            self._door.open_here()
        told = {**self._door.variables(spec.environment), **spec.environment}
        return replace(spec, environment=told), self._door

    def watch(self) -> None:
        """Start the door when it is open, and record what it reports."""
        if self._door is not None:
            self._selector.register(self._door.opened, selectors.EVENT_READ, self._begin)

    def _begin(self) -> None:
        if self._door is not None:
            self._selector.unregister(self._door.opened)
            self._door.tapes = self._context.tapes()
            self._door.start(self._leave)
            self._follow(self._door)

    def _follow(self, door: ModelDoor) -> None:
        if door.pid is not None and door.reports is not None:
            orphans.spare(door.pid)
            self._sources.add(door.reports, self._record)

    def _record(self) -> None:
        door = self._door
        if door is None or (reports := door.reports) is None:
            return
        more = door.record(self._writer)
        self._learn(door)
        if not more:
            self._sources.remove(reports)
            if door.restart():
                self._writer.note("the model's door was lost, and is made again", "model")
                self._follow(door)
            else:
                self._writer.note("the model's door is lost again and again, and stays closed", "model")

    def _learn(self, door: ModelDoor) -> None:
        self._trouble = door.trouble
        if self._trouble is None or not self._trouble.is_refusal:
            self._refused_at = math.inf
        else:
            self._refused_at = min(self._refused_at, time.monotonic())

    def close(self) -> None:
        """End the door, and record the rest."""
        if self._door is not None:
            self._door.close(self._writer)
            self._learn(self._door)
            self._door = None


def _door(context: RunContext) -> ModelDoor:
    bounds = context.plan.bounds
    patience_s = 0.0 if context.plan.replay else bounds.model_patience_s
    return ModelDoor(context.providers, patience_s, asks=context.asks, first_byte_s=bounds.model_first_byte_s)
