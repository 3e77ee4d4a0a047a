"""Gets objects from servers of Git LFS, and puts them there: in batches, by the transfer that every server knows.

The client of Git LFS itself would go wherever a server sends it, and take whatever comes; so it is not used.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final, TypeVar

from services.git.gitcmd import GitTimedOut
from services.git.model import Remote
from services.git.pointers import Pointer
from services.git.remote.addresses import AddressBook
from services.git.remote.bounds import NetworkLimits
from services.git.remote.lfs_batch import MEDIA_TYPE, Action, Endpoint, ObjectAnswer, about, ask, read_answer
from services.git.remote.lfs_http import LfsCall, LfsError, LfsSession, read_bounded

_BATCH: Final = 100
_AT_ONCE: Final = 4
_TRIES: Final = 3
_FIRST_PAUSE_SECONDS: Final = 0.5
_ANSWER_BYTES: Final = 8 << 20
_CHUNK: Final = 1 << 20
# What servers say to a signature that is too old, and to a login that has ended.
_EXPIRED: Final = {401, 403, 410}
_NO_LFS: Final = {404, 405, 501}
_JSON: Final = {"accept": MEDIA_TYPE, "content-type": MEDIA_TYPE}

T = TypeVar("T")
MakeRoom = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sink:
    """Takes objects.

    `scratch` is a directory to write in. `make_room` is told of bytes that came, before they are written. `keep` is
    given each object, a file in `scratch` whose content has been checked, to move it away.
    """

    scratch: Path
    make_room: MakeRoom
    keep: Callable[[Pointer, Path], None]


class LfsRemotes:
    """Servers of Git LFS, at addresses that remotes may have.

    Args:
        addresses: decides where servers may be, and those that they name.
        limits: of all calls for one commit.
        certificates: a file of those that vouch for servers; empty means the machine's.
    """

    def __init__(self, addresses: AddressBook, limits: NetworkLimits, certificates: str = "") -> None:
        self._addresses = addresses
        self._limits = limits
        self._certificates = certificates

    async def fetch(
        self,
        remote: Remote,
        endpoint: Endpoint,
        wanted: Collection[Pointer],
        sink: Sink,
    ) -> dict[Pointer, LfsError]:
        """Get objects; return why those could not be had that are missing.

        Args:
            remote: the repository.
            endpoint: where its objects are.
            wanted: the objects.
            sink: takes them.

        Raises:
            OSError: it cannot be written.
            Exhausted: as the sink's `make_room`.
        """
        missing: dict[Pointer, LfsError] = {}
        left = set(wanted)
        try:
            async with self._session(remote, endpoint, "download") as session:
                for batch in _batches(sorted(wanted)):
                    missing |= await _fetch_batch(session, endpoint.url, batch, sink)
                    left.difference_update(batch)
                    if (gone := _gone(missing)) is not None:
                        raise gone
        except LfsError as error:
            return missing | dict.fromkeys(left, error)
        except GitTimedOut as error:
            return missing | dict.fromkeys(left, LfsError(str(error), may_pass=True))
        return missing

    async def upload(self, remote: Remote, endpoint: Endpoint, objects: Mapping[Pointer, Path]) -> None:
        """Put objects there that the server does not have. Raises LfsError, GitTimedOut."""
        async with self._session(remote, endpoint, "upload") as session:
            for batch in _batches(sorted(objects)):
                await _upload_batch(session, endpoint.url, {pointer: objects[pointer] for pointer in batch})

    @asynccontextmanager
    async def _session(self, remote: Remote, endpoint: Endpoint, name: str) -> AsyncIterator[LfsSession]:
        session = LfsSession(self._addresses, remote, endpoint, self._certificates, self._limits.silence_seconds)
        try:
            async with asyncio.timeout(self._limits.seconds):
                yield session
        except TimeoutError:
            raise GitTimedOut(f"lfs {name}", self._limits.seconds) from None
        finally:
            await session.close()


async def _fetch_batch(
    session: LfsSession, url: str, pointers: Sequence[Pointer], sink: Sink
) -> dict[Pointer, LfsError]:
    async def get(pointer: Pointer, answer: ObjectAnswer) -> None:
        action = answer.actions.get("download")
        if answer.error or action is None:
            raise LfsError(f"its server does not have it: {answer.error or 'it does not say where it is'}")
        file = sink.scratch / f"{pointer.oid}-{pointer.size}"  # two pointers may have the same hash, of which one lies
        try:
            await _download(session, action, pointer, file, sink.make_room)
            await asyncio.to_thread(sink.keep, pointer, file)
        finally:
            await asyncio.to_thread(file.unlink, missing_ok=True)

    return await _transfer(session, url, "download", pointers, get)


async def _upload_batch(session: LfsSession, url: str, files: Mapping[Pointer, Path]) -> None:
    async def put(pointer: Pointer, answer: ObjectAnswer) -> None:
        if answer.error:
            raise LfsError(f"its server does not take an object: {answer.error}")
        if (action := answer.actions.get("upload")) is not None:
            await _send(session, action, pointer, files[pointer])
        if (action := answer.actions.get("verify")) is not None:
            headers = {**_JSON, **action.headers}
            await _make(session, LfsCall("POST", action.href, headers, action.needs_login, about(pointer)))

    failed = await _transfer(session, url, "upload", list(files), put)
    for error in failed.values():
        raise error


async def _transfer(
    session: LfsSession,
    url: str,
    operation: str,
    pointers: Sequence[Pointer],
    one: Callable[[Pointer, ObjectAnswer], Awaitable[None]],
) -> dict[Pointer, LfsError]:
    """Ask how to transfer objects, and do it; where that has expired meanwhile, ask once more. Return what failed."""
    turns = asyncio.Semaphore(_AT_ONCE)
    failed: dict[Pointer, LfsError] = {}

    async def attempt(pointer: Pointer, answer: ObjectAnswer) -> None:
        async with turns:
            try:
                if (gone := _gone(failed)) is not None:
                    raise gone
                await _persist(lambda: one(pointer, answer))
            except LfsError as error:
                failed[pointer] = error

    left = list(pointers)
    for is_last in (False, True):
        answers = await _persist(partial(_batch, session, url, operation, left))
        try:
            async with asyncio.TaskGroup() as group:
                for pointer in left:
                    group.create_task(attempt(pointer, answers.get(pointer.oid, ObjectAnswer())))
        except ExceptionGroup as several:  # such as a full disk, which all of them meet
            raise several.exceptions[0] from several
        left = [pointer for pointer in left if pointer in failed and failed[pointer].status in _EXPIRED]
        if is_last or not left:
            break
        for pointer in left:
            del failed[pointer]
    return failed


async def _batch(session: LfsSession, url: str, operation: str, pointers: Sequence[Pointer]) -> dict[str, ObjectAnswer]:
    call = LfsCall("POST", f"{url}/objects/batch", _JSON, content=ask(operation, pointers))
    try:
        async with session.call(call) as response:
            return read_answer(await read_bounded(response, _ANSWER_BYTES))
    except LfsError as error:
        if error.status in _NO_LFS:
            raise LfsError(f"the server has no Git LFS for this repository: {error}") from error
        raise
    except ValueError as error:
        raise LfsError(f"the server does not answer as one of Git LFS: {error}") from error


async def _download(session: LfsSession, action: Action, pointer: Pointer, target: Path, make_room: MakeRoom) -> None:
    """Write an object to a new file. Raises LfsError: its content is another one."""
    _check_expiry(action)
    hashed, size = hashlib.sha256(), 0

    def write(file: IO[bytes], piece: bytes) -> None:
        hashed.update(piece)
        file.write(piece)

    call = LfsCall("GET", action.href, action.headers, action.needs_login)
    with target.open("wb") as file:
        async with session.call(call) as response:
            async for piece in response.aiter_raw(_CHUNK):
                size += len(piece)
                if size > pointer.size:
                    break
                await make_room(len(piece))
                await asyncio.to_thread(write, file, piece)
    if (hashed.hexdigest(), size) != (pointer.oid, pointer.size):
        raise LfsError("what its server sends is not what its pointer names")


async def _send(session: LfsSession, action: Action, pointer: Pointer, source: Path) -> None:
    _check_expiry(action)
    headers = {"content-type": "application/octet-stream"} | {
        name.lower(): text for name, text in action.headers.items()
    }
    headers["content-length"] = str(pointer.size)
    with source.open("rb") as file:

        async def content() -> AsyncIterator[bytes]:
            await asyncio.to_thread(file.seek, 0)
            while piece := await asyncio.to_thread(file.read, _CHUNK):
                yield piece

        await _make(session, LfsCall("PUT", action.href, headers, action.needs_login, content))


async def _make(session: LfsSession, call: LfsCall) -> None:
    """Make a call whose answer has nothing to read."""
    async with session.call(call):
        return


async def _persist(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call again that may pass, after a pause that the server has chosen, or a growing one."""
    for number in range(1, _TRIES):
        try:
            return await call()
        except LfsError as error:
            if not error.may_pass:
                raise
            await asyncio.sleep(error.retry_after or _FIRST_PAUSE_SECONDS * 2**number)
    return await call()


def _gone(failed: Mapping[Pointer, LfsError]) -> LfsError | None:
    """Return why no more is tried: as many objects in vain as there are at once, each several times."""
    given_up = [error for error in failed.values() if error.may_pass]
    return given_up[-1] if len(given_up) >= _AT_ONCE else None


def _check_expiry(action: Action) -> None:
    if action.has_expired:
        raise LfsError("the server's permission to transfer it has expired", status=410)


def _batches(pointers: Sequence[Pointer]) -> Iterator[Sequence[Pointer]]:
    for start in range(0, len(pointers), _BATCH):
        yield pointers[start : start + _BATCH]
