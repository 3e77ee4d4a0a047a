"""Why a job, or one of its executions, ends without success: a table that code, messages and docs/reasons.md come from.

A new reason needs a row here, and a place that raises it. What a node refuses with a reason that has no row ends a job
as INTERNAL. The names are in the API and in stored jobs, so that a row is never renamed.
"""

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final


class Source(enum.StrEnum):
    """Who finds a reason out."""

    WORKSPACE = "workspace"
    GIT = "git"
    EXECUTION = "execution"
    DRIVER = "driver"
    LEDGER = "ledger"
    HOOK = "hook"
    PERSON = "person"


class Retried(enum.StrEnum):
    """Whether another attempt follows."""

    BY_DEFAULT = "yes"
    """Unless the job's policy has a list of its own: it is a failure of machines and networks, not of work."""
    IF_LISTED = "no"
    """Only when the job's policy lists the reason."""
    NEVER = "never"
    """It is a decision, or a retry would cost the same again: no policy may list it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonRow:
    """A reason, and what people should know about it."""

    reason: str
    meaning: str
    """What has happened, in one sentence, without a full stop."""
    sources: tuple[Source, ...]
    retried: Retried = Retried.IF_LISTED
    advice: str
    """What people can do, naming the command or setting, in one sentence without a full stop."""
    part_of: str = ""
    """The reason that this one was a part of before it had a name: whoever lists that one to be retried means both."""
    advised_by: tuple[str, ...] = ()
    """Words that a message has when it gives advice by itself. The row's advice is not added to such a message."""

    @property
    def retried_by_default(self) -> bool:
        """True when there is another attempt unless the job's policy says otherwise."""
        return self.retried is Retried.BY_DEFAULT


_EVERY_MESSAGE: Final = ("",)
"""For `advised_by`: each message has advice, or is in somebody's own words, to which nothing is added."""
_WANTS_A_TOKEN: Final = ("The server wants a ",)
_DELETE_SOME: Final = ("delete or sweep",)

_ROWS: Final = (
    # At any time: machines and networks.
    ReasonRow(
        reason="NODE_LOST",
        meaning="a service of the cell, or the whole machine, was away or full for too long",
        sources=(Source.DRIVER, Source.LEDGER),
        retried=Retried.BY_DEFAULT,
        advice="`boatyard cells` shows which machines answer, and `boatyard retry` tries the job again",
    ),
    ReasonRow(
        reason="NODE_BUSY",
        meaning="the machine was short of memory, disk or processors; drivers wait for that and end with NODE_LOST, so"
        " that only clients that run jobs themselves end with it",
        sources=(Source.EXECUTION,),
        retried=Retried.BY_DEFAULT,
        advice="lower BOATYARD_GATEWAY_MAX_JOBS on the machine, or add a machine",
    ),
    ReasonRow(
        reason="RUNNER_LOST",
        meaning="the program that ran the agent was killed, or the machine was restarted",
        sources=(Source.EXECUTION,),
        retried=Retried.BY_DEFAULT,
        advice="`boatyard retry --from-snapshot` continues from what the agent left",
    ),
    ReasonRow(
        reason="SANDBOX_FAILED",
        meaning="the sandbox could not be made, or its tools ended",
        sources=(Source.EXECUTION,),
        retried=Retried.BY_DEFAULT,
        advice="`boatyard doctor` says what this machine lacks",
    ),
    ReasonRow(
        reason="EXECUTION_NOT_FOUND",
        meaning="the execution service has no record of a run that it was given, as when its data were removed",
        sources=(Source.EXECUTION,),
        advice="`boatyard retry` runs the agent again",
    ),
    ReasonRow(
        reason="EVENTS_TRIMMED",
        meaning="the run's output was removed, because of its age or to free space, before it was read",
        sources=(Source.EXECUTION,),
        advice="`boatyard retry` runs the agent again; BOATYARD_EXECUTION_KEEP_BYTES and BOATYARD_EXECUTION_KEEP_DAYS"
        " say how much output is kept",
    ),
    ReasonRow(
        reason="CELL_TOKEN_REQUIRED",
        meaning="a service of the cell does not accept the token of its own gateway",
        sources=(Source.WORKSPACE, Source.GIT, Source.EXECUTION),
        advice="start all services of the cell again, with the same BOATYARD_HOME",
    ),
    ReasonRow(
        reason="INTERNAL",
        meaning="something that should not have: a fault of Boatyard's or of its installation",
        sources=(Source.DRIVER,),
        advice="the services' logs are in $BOATYARD_HOME/logs",
        advised_by=("the gateway's log has it",),
    ),
    # Before the agent: the repository.
    ReasonRow(
        reason="CLONE_FAILED",
        meaning="the repository could not be fetched, or its tree not be made; git's error is in the message",
        sources=(Source.GIT,),
        retried=Retried.BY_DEFAULT,
        advice="check from the machine that the repository's URL can be reached",
    ),
    ReasonRow(
        reason="REMOTE_UNREACHABLE",
        meaning="the remote's server cannot be reached, says nothing or breaks off; also on push, which is then tried"
        " again by itself",
        sources=(Source.GIT,),
        retried=Retried.BY_DEFAULT,
        part_of="CLONE_FAILED",
        advice="check from the machine that the server can be reached; then `boatyard retry` begins again, or"
        " `boatyard push` pushes a result that there is already",
    ),
    ReasonRow(
        reason="REMOTE_MOVED",
        meaning="the remote's server says that the repository is at another URL, which is in the message; also on push",
        sources=(Source.GIT,),
        advice="`boatyard repository update ID --url URL` gives the repository the URL that it has now",
    ),
    ReasonRow(
        reason="REMOTE_ACCESS_DENIED",
        meaning="the remote's server wants a token or a key, or another one; also on push",
        sources=(Source.GIT,),
        advice="`boatyard repository update ID` gives the repository a --token or an --ssh-key that may read and push",
        advised_by=_WANTS_A_TOKEN,
    ),
    ReasonRow(
        reason="REMOTE_NOT_TRUSTED",
        meaning="nobody whom the machine trusts vouches for the server's certificate, or its ssh key is not known; also"
        " on push",
        sources=(Source.GIT,),
        advice="for https, `boatyard repository update ID --ca @FILE` gives the repository its server's CA, and"
        " BOATYARD_GIT_CA the cell; for ssh, add the server's key to known_hosts of the account that runs the cell",
    ),
    ReasonRow(
        reason="REMOTE_NOT_GIT",
        meaning="what answers at the URL is no git server, such as a page for signing in; also on push",
        sources=(Source.GIT,),
        advice="check the repository's URL, and whether the server wants a token",
    ),
    ReasonRow(
        reason="REMOTE_UNSUPPORTED",
        meaning="Boatyard does not work on such a repository: it has object format sha256, or is a shallow clone",
        sources=(Source.GIT,),
        advice="give the repository the URL of a complete clone with object format sha1",
    ),
    ReasonRow(
        reason="REMOTE_MALFORMED",
        meaning="the repository lacks an object, or has one that is damaged or could do harm; git's name of it is in"
        " the message",
        sources=(Source.GIT,),
        advice="`git fsck` in the repository says what is wrong; a history is mended such as with git filter-repo",
    ),
    ReasonRow(
        reason="REMOTE_NOT_FOUND",
        meaning="the remote does not exist, or is not visible with the repository's token; also on push",
        sources=(Source.GIT,),
        advice="`boatyard repository update` corrects --url or --token",
    ),
    ReasonRow(
        reason="REMOTE_TOO_LARGE",
        meaning="the remote sends more than one fetch may bring, or makes git need more memory than it may have",
        sources=(Source.GIT,),
        advice="if the repository is that large, raise BOATYARD_GIT_FETCH_MAX_BYTES or BOATYARD_GIT_FETCH_MEMORY_BYTES",
        advised_by=("BOATYARD_GIT_FETCH_",),
    ),
    ReasonRow(
        reason="ADDRESS_NOT_ALLOWED",
        meaning="the remote's host name leads to an address that is neither public nor allowed; also on push",
        sources=(Source.GIT,),
        advice="if a git server is there, name its network in BOATYARD_GIT_ALLOW_NETWORKS",
        advised_by=("BOATYARD_GIT_ALLOW_NETWORKS",),
    ),
    ReasonRow(
        reason="REMOTE_NOT_ALLOWED",
        meaning="the remote is on this machine, and it, what leads to it or what it leads to is another user's, or lies"
        " where none may; also on push",
        sources=(Source.GIT,),
        advice="give it to the cell's user, or name its directory in BOATYARD_GIT_OTHERS_FILE_ROOTS",
        advised_by=("BOATYARD_GIT_OTHERS_FILE_ROOTS",),
    ),
    ReasonRow(
        reason="REVISION_NOT_FOUND",
        meaning="the repository has no such branch, tag or commit",
        sources=(Source.GIT,),
        advice="`boatyard run --ref REF` names another revision; `--ref HEAD` is the default, also of a repository"
        " without a commit",
    ),
    ReasonRow(
        reason="SNAPSHOT_NOT_FOUND",
        meaning="the snapshot from which the job was to start does not exist any more, or is of another repository",
        sources=(Source.GIT,),
        advice="`boatyard snapshots` lists those that are kept; BOATYARD_GIT_SNAPSHOT_KEEP_HOURS says how long",
    ),
    ReasonRow(
        reason="BASE_NOT_FOUND",
        meaning="the prepared tree of the repository was removed before a workspace was made from it",
        sources=(Source.WORKSPACE,),
        advice="`boatyard retry` prepares it again; if it happens often, raise BOATYARD_GIT_DISK_BUDGET_BYTES",
    ),
    # Before the agent: the workspace and the sandbox.
    ReasonRow(
        reason="DISK_FULL",
        meaning="the machine has too little disk space",
        sources=(Source.WORKSPACE, Source.GIT, Source.EXECUTION),
        retried=Retried.BY_DEFAULT,
        advice="free space on the machine: `boatyard workspaces --delete ID` removes a workspace that is kept",
        advised_by=_DELETE_SOME,
    ),
    ReasonRow(
        reason="WORKSPACES_QUOTA",
        meaning="all workspaces together use what they may",
        sources=(Source.WORKSPACE,),
        advice="remove some with `boatyard workspaces --delete ID`, or raise BOATYARD_WORKSPACE_TOTAL_BYTES",
        advised_by=_DELETE_SOME,
    ),
    ReasonRow(
        reason="INVALID_BRANCH",
        meaning="git does not allow the name of the result's branch",
        sources=(Source.GIT,),
        advice="`boatyard run --branch NAME` gives another",
    ),
    ReasonRow(
        reason="BRANCH_EXISTS",
        meaning="the repository has a branch of that name already, at another commit",
        sources=(Source.GIT,),
        advice="`boatyard run --branch NAME` gives another",
    ),
    ReasonRow(
        reason="BRANCH_IN_THE_WAY",
        meaning="the remote has a branch whose name is a directory of the result's branch, or the other way round",
        sources=(Source.GIT,),
        advice="`boatyard run --branch NAME` gives another",
    ),
    ReasonRow(
        reason="NOT_A_REPOSITORY",
        meaning="git finds no usable repository in the workspace",
        sources=(Source.GIT,),
        advice="`boatyard retry` starts from a fresh workspace, and hooks must leave its .git alone",
    ),
    ReasonRow(
        reason="SANDBOX_UNAVAILABLE",
        meaning="the sandbox does not work on this machine, or the container's image is missing",
        sources=(Source.GIT, Source.EXECUTION),
        advice="`boatyard doctor` says what this machine lacks",
        advised_by=_EVERY_MESSAGE,
    ),
    ReasonRow(
        reason="TIER_NOT_ALLOWED",
        meaning="the machine does not let agents choose that sandbox tier",
        sources=(Source.EXECUTION,),
        advice="leave out --sandbox, or allow the tier in BOATYARD_EXECUTION_ALLOWED_TIERS",
        advised_by=("BOATYARD_EXECUTION_ALLOWED_TIERS",),
    ),
    ReasonRow(
        reason="NETWORK_NOT_ALLOWED",
        meaning="the machine does not let agents choose that network",
        sources=(Source.EXECUTION,),
        advice="use --network allow-list, or allow the network in BOATYARD_EXECUTION_ALLOWED_NETWORKS",
        advised_by=("BOATYARD_EXECUTION_ALLOWED_NETWORKS",),
    ),
    ReasonRow(
        reason="LIMIT_NOT_ALLOWED",
        meaning="the job asks for more of something, such as memory or time, than the machine lets agents have",
        sources=(Source.EXECUTION,),
        advice="ask for less, or raise the maximum in BOATYARD_EXECUTION_LIMITS",
        advised_by=("BOATYARD_EXECUTION_LIMITS",),
    ),
    ReasonRow(
        reason="IMAGE_NOT_ALLOWED",
        meaning="the container's image may not be used on this machine, or none is named and there is no default",
        sources=(Source.EXECUTION,),
        advice="name an allowed one with `boatyard run --image NAME`, or allow it in"
        " BOATYARD_EXECUTION_CONTAINER_IMAGES",
        advised_by=("BOATYARD_EXECUTION_CONTAINER_IMAGE",),
    ),
    ReasonRow(
        reason="MODEL_KEY_MISSING",
        meaning="the engine needs a key that the execution service does not have",
        sources=(Source.EXECUTION,),
        advice="start the execution service with ANTHROPIC_API_KEY in its environment",
        advised_by=("ANTHROPIC_API_KEY",),
    ),
    # The agent.
    ReasonRow(
        reason="AGENT_FAILED",
        meaning="the agent's program ended with an exit code other than 0, or by a signal, or did not say that its work is"
        " done",
        sources=(Source.EXECUTION,),
        advice="`boatyard logs` shows what it wrote",
    ),
    ReasonRow(
        reason="AGENT_NOT_INSTALLED",
        meaning="the agent's program, or one that it calls, is not in the sandbox, or the machine has no such preset",
        sources=(Source.EXECUTION,),
        advice="commit it if it belongs to the repository; else install it on the machine, or add its directory to"
        " BOATYARD_EXECUTION_READ_ONLY_PATHS",
        advised_by=("BOATYARD_EXECUTION_READ_ONLY_PATHS", "--include-dirty", "To install", "has no agent"),
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
        meaning="the agent's workspace grew by more than it may",
        sources=(Source.EXECUTION,),
        advice="`boatyard run --disk SIZE` raises the limit",
    ),
    ReasonRow(
        reason="SCRATCH_LIMIT",
        meaning="the agent failed when its sandbox's /tmp, HOME or /dev/shm was full",
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
        meaning="the model was not done after the turns or tokens that it may use",
        sources=(Source.EXECUTION,),
        retried=Retried.NEVER,
        advice="`boatyard run --max-turns N` or `boatyard run --token-budget N` raises the limit",
    ),
    ReasonRow(
        reason="MODEL_FAILED",
        meaning="the model, or its API, refuses the request",
        sources=(Source.EXECUTION,),
        advice="check the key, the model's name (`boatyard run --model NAME`) and the task",
    ),
    ReasonRow(
        reason="MODEL_UNAVAILABLE",
        meaning="the model's API did not answer, in many tries",
        sources=(Source.EXECUTION,),
        retried=Retried.BY_DEFAULT,
        advice="`boatyard retry --from-snapshot` continues once the API answers again",
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
        advised_by=_EVERY_MESSAGE,
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
        advised_by=_EVERY_MESSAGE,
    ),
    ReasonRow(
        reason="HOOK_FAILED",
        meaning="a hook failed that must succeed; what was pushed stays pushed",
        sources=(Source.HOOK,),
        advice="`boatyard hook calls` shows the call, and `boatyard hook test` what the hook would do now",
    ),
)

REASONS: Final[Mapping[str, ReasonRow]] = {row.reason: row for row in _ROWS}
"""The rows by their reason, in the order in which people see them listed."""


def is_listed(reason: str, listed: Collection[str]) -> bool:
    """True when a policy's list of reasons has this one, or the one that it was a part of."""
    row = REASONS.get(reason)
    return reason in listed or (row is not None and row.part_of in listed)


def with_advice(reason: str, message: str) -> str:
    """Return a message followed by the advice for its reason, unless it has advice already or there is none."""
    row = REASONS.get(reason)
    if row is None or any(words in message for words in (row.advice, *row.advised_by)):
        return message
    return f"{message}; {row.advice}" if message else row.advice
