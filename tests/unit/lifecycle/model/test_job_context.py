"""Which hook is called in a stage, by the stage's name: what the driver names, readers find."""

import pytest

from services.lifecycle.model.job_context import Hook, Hooks
from services.lifecycle.model.states import HookEvent

HOOKS = Hooks(
    (
        Hook("pre-1", "true", 1.0),
        Hook("take-1", "true", 1.0, HookEvent.BEFORE, stage="take"),
        Hook("pre-2", "true", 1.0),
        Hook("post-1", "true", 1.0, HookEvent.POST),
    )
)


@pytest.mark.parametrize(
    ("stage", "hook_id"),
    [
        ("pre-hook-1", "pre-1"),
        ("pre-hook-2", "pre-2"),
        ("post-hook-1", "post-1"),
        ("before-take-hook-1", "take-1"),
        ("before-take-2-hook-1", "take-1"),
        *((name, None) for name in ("take", "hooks", "pre-hook-3", "after-take-hook-1", "approval-hook-1", "-hook-1")),
    ],
)
def test_the_hook_of_a_stage(stage: str, hook_id: str | None) -> None:
    hook = HOOKS.called_in(stage)
    assert (hook.hook_id if hook else None) == hook_id


def test_the_names_are_in_the_order_of_the_calls() -> None:
    assert list(HOOKS.by_stage(HookEvent.PRE)) == ["pre-hook-1", "pre-hook-2"]
    assert list(HOOKS.by_stage(HookEvent.BEFORE, "take-2")) == ["before-take-2-hook-1"]
