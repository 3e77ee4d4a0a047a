"""Pushes results. A branch is moved only from its expected commit, in one atomic step that the remote decides."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.common.errors import Aborted, ServiceError
from services.git import failures
from services.git.gitcmd import Command, Git, GitError, GitOutput, Invocation
from services.git.model import ProgressListener, Remote
from services.git.progress import ProgressParser
from services.git.refusals import is_in_trouble, is_unreachable
from services.git.remote.addresses import Address, AddressBook
from services.git.remote.bounds import NetworkLimits
from services.git.remote.http_answers import run_connected
from services.git.remote.listing import ask_remote

_HEADS: Final = b"refs/heads/"
# Git's word for a ref about which the remote has said nothing, and the remote's for one whose objects did not arrive.
_UNHEARD: Final = "[remote failure]"
_NOT_ARRIVED: Final = "(unpacker error)"
# The remote's for one that it would have moved, or that a program of it had to judge, unless something went wrong.
_NOT_DONE: Final = (
    *(_NOT_ARRIVED, "(failed to update ref)", "(unable to migrate objects to permanent storage)"),
    *("(pre-receive hook declined)", "(hook declined)", "(internal server error)"),
)
# The default branch says from where submodules and objects of Git LFS are fetched with the rights of the repository and
# of the cell (decisions 56 and 63), so that no agent may write the first one.
_FIRST_WITH_ADDRESSES: Final = (
    "the repository's HEAD leads to no commit yet, and the first may not have a .gitmodules or .lfsconfig that an agent"
    " wrote: push one without it, or let a person push this one"
)


class Publisher:
    """Pushes from result stores to remotes."""

    def __init__(self, git: Git, addresses: AddressBook, limits: NetworkLimits) -> None:
        self._git = git
        self._addresses = addresses
        self._limits = limits

    async def push(
        self, store: Path, remote: Remote, commit_id: str, branch: bytes, expected: str, *, report: ProgressListener
    ) -> bool:
        """Move the branch to the commit; return True when it was there already.

        Args:
            store: a repository that holds the commit.
            remote: the remote to push to.
            commit_id: the commit to push.
            branch: the branch's short name.
            expected: the commit that the branch must be at; empty when it must not exist.
            report: called with the progress.

        Raises:
            Aborted: REF_MOVED, the branch is at another commit.
            FailedPrecondition: PUSH_REJECTED, the remote refused; what refusals.py has; ADDRESS_NOT_ALLOWED;
                REMOTE_NOT_ALLOWED, SANDBOX_UNAVAILABLE.
        """
        try:
            address = await self._addresses.resolve(remote.url)
            invocation = replace(address.invocation(remote), git_dir=store)
            actual, has_head = await self._actual(address, invocation, branch)
            if self._is_there(actual, commit_id, expected, branch):
                return True
            if not has_head and await self._names_addresses(store, commit_id):
                raise failures.push_rejected(branch, Exception(_FIRST_WITH_ADDRESSES))
            pushing = replace(self._limits.pushing(invocation), on_message=ProgressParser(report))
            refused = await self._push(address, pushing, commit_id, branch, expected, *_options(remote))
            if refused.code == 0:
                return False
            # The branch may have moved between our check and our push. If an earlier try of ours moved it, all is well.
            actual, _ = await self._actual(address, invocation, branch)
            if self._is_there(actual, commit_id, expected, branch):
                return True
        except GitError as error:
            raise failures.push_failed(branch, error) from error
        raise _failure(branch, refused)

    async def check(
        self, store: Path, remote: Remote, commit_id: str, branch: bytes, allowed: Collection[str] = ()
    ) -> None:
        """Find out whether a branch could be pushed to, without changing anything.

        Args:
            store: a repository that holds the commit.
            remote: the remote that would be pushed to.
            commit_id: any commit, which is not sent.
            branch: the branch's short name.
            allowed: commits at which the branch may be already; at any other, or below it, there must be none.

        Raises:
            AlreadyExists: BRANCH_EXISTS.
            FailedPrecondition: BRANCH_IN_THE_WAY, and what `push` raises.
        """
        try:
            address = await self._addresses.resolve(remote.url)
            invocation = replace(address.invocation(remote), git_dir=store)
            actual = await self._taken(address, invocation, branch, allowed)
            if address.far_side is not None:  # it asks nobody who may push
                return
            asking = self._limits.listing(invocation)
            refused = await self._push(address, asking, commit_id, branch, actual, "--dry-run", *_options(remote))
        except GitError as error:
            raise failures.push_failed(branch, error) from error
        if refused.code:
            raise _failure(branch, refused)

    async def _taken(self, address: Address, invocation: Invocation, branch: bytes, allowed: Collection[str]) -> str:
        """Return the allowed commit at which the branch is; empty when it is not there. Raises as `check` does."""
        ref = _HEADS + branch
        parts = branch.split(b"/")
        above = [_HEADS + b"/".join(parts[:length]) for length in range(1, len(parts))]
        asked = (ref, ref + b"/*", *above)
        found = ""
        for line in await ask_remote(self._git, address, self._limits.listing(invocation), asked):
            value, _, name = line.partition(b"\t")
            if name == ref:
                found = value.decode("ascii")
            elif name in above or name.startswith(ref + b"/"):
                raise failures.branch_in_the_way(branch, name.removeprefix(_HEADS))
        if found and found not in allowed:
            raise failures.branch_exists(branch, found)
        return found

    async def _push(
        self, address: Address, invocation: Invocation, commit_id: str, branch: bytes, expected: str, *more: str
    ) -> GitOutput:
        ref = _HEADS + branch
        lease = b"--force-with-lease=" + ref + b":" + expected.encode()
        async with address.writing(replace(invocation, expected_codes=(0, 1))) as target:
            flags: tuple[str | bytes, ...] = ("--porcelain", "--progress", "--no-verify", lease, *more, *target.flags)
            command = Command("push", flags, (target.url, commit_id.encode() + b":" + ref))
            return await run_connected(self._git, command, target)

    async def _actual(self, address: Address, invocation: Invocation, branch: bytes) -> tuple[str, bool]:
        """Return the commit at which the branch is, empty when it is not there, and whether HEAD leads to a commit."""
        ref = _HEADS + branch
        actual, has_head = "", False
        for line in await ask_remote(self._git, address, self._limits.listing(invocation), (ref, b"HEAD")):
            # The patterns also match the ends of longer names.
            value, _, name = line.partition(b"\t")
            if name == ref:
                actual = value.decode("ascii")
            has_head = has_head or (name == b"HEAD" and not value.startswith(b"ref: "))
        return actual, has_head

    async def _names_addresses(self, store: Path, commit_id: str) -> bool:
        """True when a commit has a .gitmodules, or a .lfsconfig."""
        listing = Command("ls-tree", ("--name-only",), (commit_id, ".gitmodules", ".lfsconfig"))
        return bool((await self._git.run(listing, Invocation(git_dir=store))).stdout)

    def _is_there(self, actual: str, commit_id: str, expected: str, branch: bytes) -> bool:
        """Return True when the branch is at the commit already, False when it is where it was expected.

        Raises:
            Aborted: REF_MOVED.
        """
        if actual == commit_id:
            return True
        if actual != expected:
            name = branch.decode("utf-8", "replace")
            found = f"is at {actual}" if actual else "does not exist"
            sought = f"to be at {expected}" if expected else "not to exist"
            message = f"the branch {name} {found}, and was expected {sought}"
            raise Aborted("REF_MOVED", message, expected=expected, actual=actual)
        return False


def _options(remote: Remote) -> list[str]:
    return [f"--push-option={option}" for option in remote.push_options]


def _failure(branch: bytes, completed: GitOutput) -> ServiceError:
    """Return the error of a push that failed, in the remote's own words: the refused ref's line, and what hooks said.

    Only a line of the ref says that the remote has decided. Without one, if it is git's own about a remote that has
    said nothing, or the remote's about objects that have not arrived whole, the push has not reached it; nor if the
    remote could not do it, such as on a full disk of its own.
    """
    lines = [line for line in completed.stdout.decode("utf-8", "replace").splitlines() if line.startswith("!")]
    messages = [line for line in completed.stderr.splitlines() if not line.startswith("error: failed to push")]
    words = Exception("\n".join([*(line.split("\t")[-1] for line in lines), *messages]))
    if all(_is_undecided(line, words) for line in lines):
        return failures.push_failed(branch, words)
    return failures.push_rejected(branch, words)


def _is_undecided(line: str, words: Exception) -> bool:
    """True for a ref's line by which the remote has not decided; `words` are all that was said."""
    if _UNHEARD in line or (_NOT_ARRIVED in line and is_unreachable(words)):
        return True
    return is_in_trouble(words) and line.endswith(_NOT_DONE)
