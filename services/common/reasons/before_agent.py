"""Why a job ends at any time, or before its agent has begun."""

from typing import Final

from services.common.reasons.row import EVERY_MESSAGE, ReasonRow, Retried, Source

_WANTS_A_TOKEN: Final = ("The server wants a ",)
_DELETE_SOME: Final = ("delete or sweep",)

BEFORE_AGENT: Final = (
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
        meaning="the machine was short of memory, disk or processors; drivers wait for memory and processors and end"
        " with NODE_LOST, and take a lack of disk for DISK_FULL, so that only clients that run jobs themselves end with"
        " it",
        sources=(Source.EXECUTION,),
        retried=Retried.BY_DEFAULT,
        advice="lower BOATYARD_GATEWAY_MAX_JOBS on the machine, or add a machine",
    ),
    ReasonRow(
        reason="NODE_VERSION",
        meaning="a service of the machine is of an earlier version, which cannot do what the job needs",
        sources=(Source.DRIVER,),
        advice="upgrade the machine's services, start them again, and `boatyard retry` the job",
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
        meaning="the remote's server cannot be reached, says nothing, breaks off, or has trouble of its own, such as a"
        " full disk; also on push, which is then tried again by itself",
        sources=(Source.GIT, Source.DRIVER),
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
        meaning="the machine's settings do not allow the remote's URL; or the remote is on this machine, and it, what"
        " leads to it or what it leads to is another user's, or lies where none may; also on push",
        sources=(Source.GIT,),
        advice="`boatyard repository update ID --url URL` gives the repository another URL; give one on this machine to"
        " the cell's user, or name its directory in BOATYARD_GIT_OTHERS_FILE_ROOTS",
        advised_by=(
            "BOATYARD_GIT_OTHERS_FILE_ROOTS",
            "BOATYARD_GIT_FILE_ROOTS",
            "BOATYARD_GIT_ALLOW_LOOPBACK_HTTP",
        ),
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
    ReasonRow(
        reason="BASE_INCOMPLETE",
        meaning="submodules, or files in Git LFS, cannot be had, and the policy's `incomplete` is STRICT",
        sources=(Source.DRIVER,),
        advice="`--incomplete fail` lets an agent work without, and `--no-git-lfs` with pointers",
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
        reason="COORDINATOR_VERSION",
        meaning="the coordinator's version cannot do what the job needs, so that the job goes to another cell",
        sources=(Source.LEDGER,),
        advice="upgrade the coordinator",
        advised_by=EVERY_MESSAGE,
    ),
    ReasonRow(
        reason="SANDBOX_UNAVAILABLE",
        meaning="the sandbox does not work on this machine, or the container's image is missing",
        sources=(Source.GIT, Source.EXECUTION),
        advice="`boatyard doctor` says what this machine lacks",
        advised_by=EVERY_MESSAGE,
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
        reason="DOOR_UNAVAILABLE",
        meaning="the agent cannot reach the providers that it names from a container here: what makes containers runs"
        " as root, and the execution service does not",
        sources=(Source.EXECUTION,),
        advice="run the service as root or use rootless podman, or leave out --sandbox container or --provider",
    ),
    ReasonRow(
        reason="MODEL_KEY_MISSING",
        meaning="the engine asks a model, and nobody of its wire has a key for the agent",
        sources=(Source.EXECUTION,),
        advice="make a provider with `boatyard provider create`, or start the cell with ANTHROPIC_API_KEY in its"
        " environment",
        advised_by=("ANTHROPIC_API_KEY",),
    ),
)
