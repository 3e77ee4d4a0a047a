"""Why a job ends while its agent works, or after that."""

from typing import Final

from services.common.reasons.row import EVERY_MESSAGE, ReasonRow, Retried, Source

FROM_AGENT_ON: Final = (
    # The agent.
    ReasonRow(
        reason="AGENT_FAILED",
        meaning="the agent's program ended with an exit code other than 0, or by a signal, or did not say that its work"
        " is done",
        sources=(Source.EXECUTION,),
        advice="`boatyard logs` shows what it wrote",
    ),
    ReasonRow(
        reason="AGENT_NOT_INSTALLED",
        meaning="the agent's program, or one that it calls, is not in the sandbox, or the machine has no such preset",
        sources=(Source.EXECUTION,),
        advice="commit it if it belongs to the repository; else install it on the machine, or add its directory to"
        " BOATYARD_EXECUTION_READ_ONLY_PATHS",
        advised_by=(
            "BOATYARD_EXECUTION_READ_ONLY_PATHS",
            "--include-dirty",
            "To install",
            "has no agent",
            "asks nobody",
        ),
    ),
    ReasonRow(
        reason="TIMED_OUT",
        meaning="the agent ran longer than its timeout",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --timeout S` raises the limit",
    ),
    ReasonRow(
        reason="IDLE",
        meaning="the agent wrote nothing, or its model was silent, for longer than its idle timeout",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --idle-timeout S` raises the limit",
    ),
    ReasonRow(
        reason="MEMORY_LIMIT",
        meaning="the agent's processes needed more memory than they may use",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --memory SIZE` raises the limit",
    ),
    ReasonRow(
        reason="PROCESS_LIMIT",
        meaning="the agent wanted more processes and threads at once than it may have",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --processes N` raises the limit",
    ),
    ReasonRow(
        reason="CPU_LIMIT",
        meaning="the agent's processes used more processor time than they may",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --cpu S` raises the limit",
    ),
    ReasonRow(
        reason="DISK_LIMIT",
        meaning="the agent's workspace and HOME grew by more than they may",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --disk SIZE` raises the limit",
    ),
    ReasonRow(
        reason="SCRATCH_LIMIT",
        meaning="the agent failed when its sandbox's /tmp or /dev/shm, or a HOME in memory, was full",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --scratch SIZE` makes them larger, up to the machine's BOATYARD_EXECUTION_SCRATCH_BYTES;"
        " the workspace is on disk",
    ),
    ReasonRow(
        reason="OUTPUT_LIMIT",
        meaning="the agent wrote more output than it may",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --output SIZE` raises the limit",
    ),
    ReasonRow(
        reason="BUDGET_EXCEEDED",
        meaning="the agent was not done after what it may spend on models, or the turns or tokens it may use",
        sources=(Source.EXECUTION,),
        retried=Retried.NEVER,
        advice="`boatyard retry JOB --budget USD` lets it go on (a project's: `boatyard budget update`);"
        " `--max-turns N` or `--token-budget N` raises the engine's limit",
    ),
    ReasonRow(
        reason="MODEL_FAILED",
        meaning="the model, or its API, refuses the request",
        sources=(Source.EXECUTION,),
        advice="check the key, the model's name (`boatyard run --model NAME`) and the task",
    ),
    ReasonRow(
        reason="MODEL_UNAVAILABLE",
        meaning="the model's provider did not answer for as long as an agent waits for it",
        sources=(Source.EXECUTION,),
        retried=Retried.BY_DEFAULT,
        advice="the job waits for the provider for a day, and goes on with what it has done; `boatyard show` says when"
        " it asks again, and `boatyard retry --from-snapshot` continues after that",
    ),
    ReasonRow(
        reason="REPLAY_MISMATCH",
        meaning="the agent asked its model something else than what was recorded",
        sources=(Source.EXECUTION,),
        advice="`--replay-by order` gives each request the next answer all the same; what has changed since (the"
        " prompt, the base, the agent's version), the message shows",
    ),
    # After the agent.
    ReasonRow(
        reason="ASK_UNREADABLE",
        meaning="the file with the agent's question could not be read",
        sources=(Source.DRIVER,),
        advice="the agent must write its question as a plain file, at .boatyard/ask",
    ),
    ReasonRow(
        reason="ROUNDS_EXCEEDED",
        meaning="the agent asks again, and no round is left for the answer",
        sources=(Source.DRIVER,),
        advice="`boatyard run --max-extra-rounds N` allows more",
    ),
    ReasonRow(
        reason="REPOSITORY_NOT_FOUND",
        meaning="the machine has no copy of the repository any more, so that no result can be taken or pushed",
        sources=(Source.GIT,),
        advice="`boatyard retry` fetches the repository again",
    ),
    ReasonRow(
        reason="TAKE_FAILED",
        meaning="the workspace could not be recorded as a commit; git's error is in the message",
        sources=(Source.GIT,),
        advice="`boatyard show` names the workspace, or the snapshot, with what the agent left",
    ),
    ReasonRow(
        reason="RESULT_INCOMPLETE",
        meaning="something that the agent left is not in the result: it cannot be read, git does not accept it, or it"
        " is inside a submodule",
        sources=(Source.DRIVER,),
        advice="what could be taken is kept: `boatyard diff` shows it, `boatyard push` pushes it as it is, `boatyard"
        " retry --from-snapshot` continues from it, `boatyard artifacts` has patches of what was done in submodules,"
        " and `--incomplete accept` lets a job go on with it",
    ),
    ReasonRow(
        reason="RESULT_TOO_LARGE",
        meaning="the agent left more files, or more bytes in files, than can be taken",
        sources=(Source.GIT,),
        advice="`boatyard show` names the workspace with what the agent left; BOATYARD_GIT_TAKE_MAX_BYTES,"
        " BOATYARD_GIT_TAKE_MAX_FILES and BOATYARD_GIT_MAX_RESULT_BYTES are the limits",
    ),
    ReasonRow(
        reason="VERIFY_FAILED",
        meaning="the check did not pass on the commit that was taken",
        sources=(Source.DRIVER,),
        advice="`boatyard show` says where its output is, and `boatyard retry --from-snapshot` continues from what was"
        " left",
    ),
    ReasonRow(
        reason="PUSH_REJECTED",
        meaning="the remote refused the push; its words are in the message",
        sources=(Source.GIT,),
        advice="check the remote's rules for the branch, and that the repository's token may push; then `boatyard push`"
        " pushes the result",
    ),
    ReasonRow(
        reason="REF_MOVED",
        meaning="the remote has the branch already, at another commit",
        sources=(Source.GIT,),
        advice="`boatyard run --branch NAME` gives another",
    ),
    # People and hooks.
    ReasonRow(
        reason="REJECTED",
        meaning="a person rejected a checkpoint; the message is the comment",
        sources=(Source.PERSON,),
        retried=Retried.NEVER,
        advice="`boatyard checkpoints --all` shows who decided, and `boatyard retry` begins again",
        advised_by=EVERY_MESSAGE,
    ),
    ReasonRow(
        reason="EXPIRED",
        meaning="nobody answered a checkpoint in time",
        sources=(Source.PERSON,),
        retried=Retried.NEVER,
        advice="`boatyard run --answer-within` gives people more time, and `boatyard retry` asks again",
    ),
    ReasonRow(
        reason="VETOED",
        meaning="a hook vetoed the job; the message is what the hook says",
        sources=(Source.HOOK,),
        retried=Retried.NEVER,
        advice="`boatyard hook calls` shows which hook it was",
        advised_by=EVERY_MESSAGE,
    ),
    ReasonRow(
        reason="HOOK_FAILED",
        meaning="a hook failed that must succeed; what was pushed stays pushed",
        sources=(Source.HOOK,),
        advice="`boatyard hook calls` shows the call, and `boatyard hook test` what the hook would do now",
    ),
)
