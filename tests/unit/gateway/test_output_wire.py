"""What a job left, as text: kept bytes that are not UTF-8 are shown, and said to be lossy."""

import pytest
from boatyard.git.v1.git_pb2 import ChangedFile
from google.protobuf.json_format import MessageToJson

from services.gateway.wire.output import output_to_proto
from services.lifecycle.model.output import ChangeKind, DiffSummary, FileChange, Output, Verification


@pytest.mark.parametrize(
    ("stored", "text", "is_lossy"),
    [(b"", "", False), ("+ü\n".encode(), "+ü\n", False), (b"+caf\xe9\n", "+caf\ufffd\n", True)],
)
def test_a_diff_and_a_log_say_whether_they_are_lossy(stored: bytes, text: str, is_lossy: bool) -> None:
    output = Output(changes=DiffSummary(diff=stored), log_tail=stored, output_bytes=len(stored))
    message = output_to_proto(output)
    assert (message.diff, message.diff_is_lossy) == (text, is_lossy)
    assert (message.log_tail, message.log_tail_is_lossy) == (text, is_lossy)


@pytest.mark.parametrize("passed", [True, False])
def test_a_check_that_did_not_pass_says_so_and_not_nothing(passed: bool) -> None:
    message = output_to_proto(Output(verification=Verification("exec-check", passed)))
    assert message.verification.HasField("passed")
    assert ('"passed": false' in MessageToJson(message)) is not passed


def test_a_log_that_was_kept_cut_inside_a_character_begins_with_the_next() -> None:
    message = output_to_proto(Output(log_tail="ü✓ done\n".encode()[1:], output_bytes=1000))
    assert (message.log_tail, message.log_tail_is_lossy) == ("✓ done\n", False)
    whole = output_to_proto(Output(log_tail=b"\x80 all of it", output_bytes=11))
    assert (whole.log_tail, whole.log_tail_is_lossy) == ("\ufffd all of it", True)


def test_paths_that_are_not_utf_8_have_their_bytes_beside_them() -> None:
    files = (
        FileChange(b"a\xff", ChangeKind.RENAMED, b"\xfe"),
        FileChange("ü".encode(), ChangeKind.MODIFIED),
    )
    odd, plain = output_to_proto(Output(changes=DiffSummary(files), branch=b"b\xff")).files_changed
    assert (odd.change, plain.change) == (ChangedFile.CHANGE_RENAMED, ChangedFile.CHANGE_MODIFIED)
    assert (odd.path, odd.raw_path, odd.old_path, odd.raw_old_path) == ("a\ufffd", b"a\xff", "\ufffd", b"\xfe")
    assert (plain.path, plain.raw_path, plain.old_path, plain.raw_old_path) == ("ü", b"", "", b"")
