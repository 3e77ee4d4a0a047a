"""What was seen is what is pushed, from a snapshot too: all that differs from the commit that the remote has.

A model of agents' work goes along with real jobs on real node services: through attempts that begin anew or from what
the last one left, rounds, approvals, rejections and refused pushes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from boatyard.gateway.v1 import catalog_pb2, checkpoint_pb2, job_pb2, runtime_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.common.ids import new_id
from tests.kit.repos import Repo
from tests.kit.services import Services

SUCCEEDED, FAILED = job_pb2.Job.STATE_SUCCEEDED, job_pb2.Job.STATE_FAILED
BEFORE_PUSH = {"checkpoints": {"before": ["push"]}}
PROTECTED = ".ci/**"
LAST_TASK = "sed -n 's/^do: //p' | tail -n 1 | sh -e"
"""An agent that does what the last line of its prompt says: in a later round, what was asked for then."""
GIT = "git -c user.name=Ada -c user.email=a@b"


@dataclass(frozen=True)
class Deed:
    """A thing that an agent does to its workspace."""

    name: str
    path: str = ""

    @property
    def script(self) -> str:
        match self.name:
            case "append":
                return f"mkdir -p $(dirname {self.path}); echo {self.path} >> {self.path}"
            case "remove":
                return f"rm -f {self.path}"
            case "commit":
                return f"git add --all; {GIT} commit --quiet --message=mine || true"
            case "reset":
                return "git add --all; git reset --quiet --hard"
        return "exit 3"


@dataclass
class Work:
    """What must be in a workspace: its files, those of HEAD, and the paths that commits have changed."""

    base: dict[str, str]
    tree: dict[str, str] = field(default_factory=dict)
    head: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    commits: int = 0

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.tree, self.head, self.touched, self.commits = {**self.base}, {**self.base}, set(), 0

    def do(self, deed: Deed) -> None:
        match deed.name:
            case "append":
                self.tree[deed.path] = self.tree.get(deed.path, "") + f"{deed.path}\n"
            case "remove":
                self.tree.pop(deed.path, None)
            case "commit" if self.tree != self.head:
                self.touched |= differing(self.head, self.tree)
                self.head = {**self.tree}
                self.commits += 1
            case "reset":
                self.tree = {**self.head}

    @property
    def to_push(self) -> bool:
        return self.tree != self.base or self.commits > 0

    @property
    def asks_for_protected(self) -> bool:
        return any(path.startswith(".ci/") for path in differing(self.base, self.tree) | self.touched)


@dataclass(frozen=True)
class Attempt:
    """How an attempt begins, and what becomes of its result."""

    begins: str
    deeds: tuple[Deed, ...] = ()
    asked_again: tuple[Deed, ...] | None = None
    is_rejected: bool = False
    is_refused: bool = False


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


PATHS = st.sampled_from(["README", "a", "d/b", ".ci/c"])
DEEDS = st.one_of(
    st.builds(Deed, st.sampled_from(["append", "append", "remove"]), PATHS),
    st.builds(Deed, st.sampled_from(["commit", "reset"])),
)
SOME = st.lists(DEEDS, max_size=3).map(tuple)
ENDS = st.sampled_from([(), (), (Deed("fail"),)])
ATTEMPTS = st.builds(
    Attempt,
    st.sampled_from(["from snapshot", "from snapshot", "job from snapshot", "job from snapshot", "anew"]),
    st.builds(tuple.__add__, SOME, ENDS),
    st.none() | SOME,
    st.booleans(),
    st.booleans(),
)


class Story:
    """One repository, and the jobs on it."""

    def __init__(self, services: Services, remote: Repo, *, approves: bool) -> None:
        self.services = services
        self.remote = remote
        self.policy = BEFORE_PUSH if approves else {}
        self.work = Work({path: f"{content}\n" for path, content in remote.files("main").items()})
        self.seen = Repo(remote.path)
        self.job: job_pb2.Job
        self.deeds: tuple[Deed, ...] = ()

    async def begin(self) -> None:
        """Add the repository, in a project that protects what is below `.ci`."""
        self.project = new_id("project")
        project = catalog_pb2.Project(project_id=self.project, floor={"protected_paths": [PROTECTED]})
        await self.services.catalog.CreateProject(catalog_pb2.CreateProjectRequest(project=project))
        repository = catalog_pb2.Repository(url=str(self.remote.path), project_id=self.project)
        made = await self.services.catalog.CreateRepository(catalog_pb2.CreateRepositoryRequest(repository=repository))
        self.repository = made.repository.repository_id

    async def run(self, attempts: Sequence[Attempt]) -> None:
        """Go through attempts, up to the first that succeeds. The first begins with a job."""
        for number, attempt in enumerate(attempts):
            await self._begin_attempt(attempt if number else Attempt("anew", attempt.deeds))
            if await self._follow(attempt):
                return

    async def _begin_attempt(self, attempt: Attempt) -> None:
        snapshot_id = self.job.output.snapshot_id if hasattr(self, "job") else ""
        begins = attempt.begins if snapshot_id else "anew"
        if begins == "anew":
            self.work.begin_anew()
        if begins == "from snapshot":
            request = job_pb2.RetryJobRequest(job_id=self.job.job_id, from_snapshot=True)
            self.job = (await self.services.jobs.RetryJob(request)).job
        else:
            self.deeds = attempt.deeds
            self.job = await self.services.submit(
                LAST_TASK,
                prompt=task(attempt.deeds),
                project_id=self.project,
                repository_id=self.repository,
                policy={**self.policy, "verify_command": "git rev-parse HEAD^{tree}"},
                snapshot_id="" if begins == "anew" else snapshot_id,
            )
        self._do(self.deeds)

    def _do(self, deeds: tuple[Deed, ...]) -> None:
        for deed in deeds:
            self.work.do(deed)

    async def _follow(self, attempt: Attempt) -> bool:
        """Answer what the attempt asks, and check how it ends; return whether that was with success."""
        if any(deed.name == "fail" for deed in self.deeds):
            return await self._ended(FAILED, "AGENT_FAILED")
        asked = await self._asked()
        if asked and attempt.asked_again is not None:
            changes = checkpoint_pb2.RequestChangesRequest(
                checkpoint_id=asked.checkpoint_id, comment=task(attempt.asked_again)
            )
            await self.services.checkpoints.RequestChanges(changes)
            self._do(attempt.asked_again)
            asked = await self._asked(after=asked)
        if asked and attempt.is_rejected:
            rejection = checkpoint_pb2.RejectCheckpointRequest(checkpoint_id=asked.checkpoint_id, reason="no")
            await self.services.checkpoints.RejectCheckpoint(rejection)
            return await self._ended(FAILED, "REJECTED")
        if asked:
            is_refused = attempt.is_refused
            if is_refused:
                self.remote.git("config", "receive.hideRefs", "refs/heads")
            approval = checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
            await self.services.checkpoints.ApproveCheckpoint(approval)
            if is_refused:
                try:
                    return await self._ended(FAILED, "PUSH_REJECTED")
                finally:
                    self.remote.git("config", "--unset", "receive.hideRefs")
        return await self._ended(SUCCEEDED)

    async def _asked(self, after: checkpoint_pb2.Checkpoint | None = None) -> checkpoint_pb2.Checkpoint | None:
        """Check that a person is asked whenever one should be, and is shown all that will be pushed."""
        known = after.checkpoint_id if after else ""
        now = await self.services.until(
            self.job.job_id,
            lambda job: (
                job.state in {SUCCEEDED, FAILED}
                or (
                    job.state == job_pb2.Job.STATE_AWAITING_APPROVAL
                    and bool(job.checkpoints)
                    and job.checkpoints[-1].checkpoint_id != known
                )
            ),
            timeout=300,
        )
        is_asked = now.state == job_pb2.Job.STATE_AWAITING_APPROVAL
        assert is_asked == (self.work.to_push and (bool(self.policy) or self.work.asks_for_protected)), now
        if not is_asked:
            return None
        asked = now.checkpoints[-1]
        assert ("protected paths" in asked.question) == self.work.asks_for_protected
        await self._check_shown(asked.execution_id)
        return asked

    async def _check_shown(self, execution_id: str) -> None:
        """Check that the diff of an execution leads from the base to the whole tree."""
        request = runtime_pb2.ReadDiffRequest(execution_id=execution_id)
        diff = b"".join([piece.data async for piece in self.services.runtime.ReadDiff(request)])
        scratch = self.remote.path.parent / new_id("shown")
        self.remote.git("worktree", "add", "--quiet", "--detach", str(scratch), "main")
        shown = Repo(scratch)
        if diff:
            shown.git("apply", "--index", stdin=diff)
        assert shown.files(shown.git("write-tree")) == stripped(self.work.tree)

    async def _ended(self, state: "job_pb2.Job.State.ValueType", reason: str = "") -> bool:
        job = self.job = await self.services.ended(self.job.job_id, timeout=300)
        assert (job.state, job.reason) == (state, reason), job
        base, pushed = self.remote.head("main"), state == SUCCEEDED and self.work.to_push
        assert job.output.base_commit_id == base
        assert job.output.pushed == pushed
        assert (self.remote.git("branch", "--list", "boatyard/*") != "") == pushed
        if state != SUCCEEDED:
            return False
        await self._check_shown(job.execution_ids[-1])
        if pushed:
            branch = job.output.branch
            assert self.remote.files(branch) == stripped(self.work.tree)
            uncommitted = self.work.tree != self.work.head
            assert self.remote.git("rev-list", "--count", f"{base}..{branch}") == str(self.work.commits + uncommitted)
        tree = self.remote.git("rev-parse", f"{job.output.branch if pushed else base}^{{tree}}")
        checked = await self.services.output(job.output.verification.execution_id)
        assert checked.decode().strip() == tree, "what was checked is what was pushed"
        return True


def task(deeds: tuple[Deed, ...]) -> str:
    """Return what the agent is told to do, in a line of its own."""
    return "Work.\n\ndo: " + "; ".join(["true", *(deed.script for deed in deeds)])


def stripped(tree: dict[str, str]) -> dict[str, str]:
    """Return contents as `Repo.files` does: without the last line break."""
    return {path: content.removesuffix("\n") for path, content in tree.items()}


async def tell(services: Services, place: Path, attempts: Sequence[Attempt], *, approves: bool) -> Repo:
    """Run a story on a repository of its own."""
    root = place / new_id("story")
    root.mkdir()
    remote = Repo.sample(root / "source").bare_clone(root / "remote.git")
    story = Story(services, remote, approves=approves)
    await story.begin()
    await story.run(attempts)
    return remote


APPENDED, UNDONE = (Deed("append", "a"),), (Deed("reset"),)


async def test_a_refused_push_is_made_up_for(services: Services, tmp_path: Path) -> None:
    """There is nothing left to do for the second job; and what a person sees before the push is all of it."""
    attempts = [Attempt("anew", APPENDED, is_refused=True), Attempt("job from snapshot")]
    remote = await tell(services, tmp_path, attempts, approves=True)
    (branch,) = remote.git("branch", "--list", "boatyard/*").split()
    assert remote.files(branch)["a"] == "a"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "attempts",
    [
        [Attempt("anew", (*APPENDED, Deed("fail"))), Attempt("job from snapshot", UNDONE)],
        [Attempt("anew", (*APPENDED, Deed("commit"), *APPENDED, Deed("fail"))), Attempt("job from snapshot", UNDONE)],
        [Attempt("anew", APPENDED, is_rejected=True), *[Attempt("from snapshot", is_refused=True)] * 2],
        [Attempt("anew", (Deed("append", ".ci/c"), Deed("fail"))), Attempt("job from snapshot", APPENDED, UNDONE)],
        [
            Attempt("anew", (Deed("append", "README"), Deed("commit"), Deed("fail"))),
            Attempt("job from snapshot", UNDONE, (*UNDONE, Deed("append", "README")), is_rejected=True),
        ],
    ],
    ids=["undone", "undone to its commit", "a chain", "protected", "rejected after a commit"],
)
async def test_stories_of_snapshots(services: Services, tmp_path: Path, attempts: list[Attempt]) -> None:
    await tell(services, tmp_path, [*attempts, Attempt("from snapshot")], approves=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(attempts=st.lists(ATTEMPTS, min_size=2, max_size=4), approves=st.booleans())
async def test_what_was_seen_is_what_is_pushed(
    services: Services, tmp_path: Path, attempts: list[Attempt], approves: bool
) -> None:
    await tell(services, tmp_path, attempts, approves=approves)
