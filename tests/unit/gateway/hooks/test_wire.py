"""What people are shown of a hook's answer."""

from datetime import UTC, datetime

from services.gateway.hooks import wire
from services.gateway.values.hooks import CallView
from services.lifecycle.hook_dry_run import DryRunResult
from services.lifecycle.model.hook_calls import CallState
from services.lifecycle.model.states import HookEvent

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOSTILE = "no\n\x1b]0;t\x07approved by admin\u202e"
SHOWN = r"no\n\x1b]0;t\x07approved by admin\u202e"


def test_a_hooks_answer_is_one_line() -> None:
    call = CallView(
        call_id="c",
        hook_id="h",
        job_id="j",
        project_id="p",
        attempt=1,
        event=HookEvent.PRE,
        stage="",
        state=CallState.DONE,
        begun=1,
        tries=1,
        status=HOSTILE,
        answer=HOSTILE,
        start_time=NOW,
        end_time=NOW,
    )
    recorded = wire.call_to_proto(call)
    dry = wire.dry_run_to_proto(DryRunResult("c", CallState.DONE, HOSTILE, HOSTILE))

    assert [recorded.status, recorded.answer, dry.status, dry.answer] == [SHOWN] * 4
