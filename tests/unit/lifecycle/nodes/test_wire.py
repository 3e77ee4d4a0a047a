"""Bytes of the driver's values as the nodes' text, and back."""

from collections.abc import AsyncIterator

import grpc
import pytest
from boatyard.execution.v1 import execution_pb2
from boatyard.git.v1 import git_pb2 as git_pb
from boatyard.workspace.v1 import layout_pb2 as layout_pb

from services.common.caveats import CaveatKind
from services.common.errors import Invalid
from services.common.fence import Fence
from services.common.text import is_utf8
from services.lifecycle.model.node_work import Base, Layout, Run
from services.lifecycle.model.output import Caveat, ChangeKind
from services.lifecycle.model.states import ExecutionState
from services.lifecycle.nodes import Nodes, wire


def test_what_is_not_utf_8_is_refused_by_field() -> None:
    """A job from before its branch had to be UTF-8 ends as if the node had refused it."""
    assert wire.text_to_proto("branch", "ü".encode()) == "ü"
    with pytest.raises(Invalid) as refused:
        wire.text_to_proto("branch", b"b\xff")
    assert refused.value.violations == (("branch", "must be UTF-8"),)
    with pytest.raises(Invalid) as refused:
        wire.texts_to_proto("layers", [b"/a", b"/\xff"])
    assert refused.value.violations == (("layers[1]", "must be UTF-8"),)


@pytest.mark.parametrize(
    "layout", [Layout(path="/ü".encode()), Layout(lowers=(b"/l", b"/m"), upper=b"/u", work=b"/w", mounted_path=b"/t")]
)
def test_layouts_come_back(layout: Layout) -> None:
    message = layout_pb.Layout.FromString(wire.layout_to_proto(layout).SerializeToString())
    assert wire.layout_from_proto(message) == layout


def test_paths_in_a_repository_are_read_as_bytes() -> None:
    base = git_pb.Base(commit_id="c", layers=["/a"], read_only_paths=["/o"], pins_path="/p")
    assert wire.BASE.from_proto(base) == Base("c", (b"/a",), (b"/o",), b"/p")
    changed = wire.FILE_CHANGE.from_proto(
        git_pb.ChangedFile(path="\ufffd", raw_path=b"\xff", old_path="old", change=git_pb.ChangedFile.CHANGE_RENAMED)
    )
    assert (changed.path, changed.change, changed.old_path) == (b"\xff", ChangeKind.RENAMED, b"old")
    odd = git_pb.Caveat(
        kind=git_pb.Caveat.KIND_UNREADABLE, paths=["a", "\ufffd"], raw_paths=[b"", b"\xff"], total_paths=2
    )
    (caveat,) = wire.RESULT.from_proto(git_pb.TakeResultResponse(commit_id="c", caveats=[odd])).caveats
    assert caveat == Caveat(CaveatKind.UNREADABLE, (b"a", b"\xff"), 2)


class Written:
    """An execution service whose run has written this, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def WatchEvents(self, request: object, **_: object) -> "Written":  # noqa: N802 - the contract's name
        return self

    def cancel(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[execution_pb2.WatchEventsResponse]:
        for piece in self.pieces:
            yield execution_pb2.WatchEventsResponse(events=[{"output": {"data": piece}}])


async def tail(max_bytes: int, *pieces: bytes) -> bytes:
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    executions = Nodes(channel, channel, channel).for_job(Fence("job-1", 1), _no_pause).executions
    executions._stub = Written(*pieces)
    run = Run("exec-1", ExecutionState.SUCCEEDED, output_bytes=sum(map(len, pieces)))
    return await executions.tail(run, max_bytes)


async def _no_pause(seconds: float) -> None:
    raise AssertionError(seconds)


async def test_the_end_of_a_log_is_not_cut_inside_a_character() -> None:
    text = "\u00fc\u2713\U0001f6a2 done\n"
    data = text.encode()
    for size in range(1, len(data) + 1):
        for split in range(len(data)):
            end = await tail(size, data[:split], data[split:])
            assert is_utf8(end)
            assert text.endswith(end.decode())
            assert len(end) <= size
    assert await tail(100, b"\x80 all") == b"\x80 all", "nothing was cut"
