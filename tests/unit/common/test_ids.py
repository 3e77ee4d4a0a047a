"""Ids sort by time, differ, and are checked."""

import pytest
from boatyard.gateway.v1 import catalog_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import Invalid
from services.common.fence import Fence
from services.common.ids import is_id, new_id
from services.common.rpc.rules import Rules

RULES = Rules()


def test_ids_are_valid_ordered_and_differ() -> None:
    ids = [new_id("job") for _ in range(2000)]
    assert len(set(ids)) == 2000
    # Two made within one quarter of a microsecond may swap; these are further apart.
    assert ids == sorted(ids)
    assert all(is_id(made) and len(made) == len("job-") + 26 for made in ids)
    assert not any(RULES.violations(pb.GetProjectRequest(project_id=made)) for made in ids[:100])


@pytest.mark.parametrize("text", ["", "-a", "A", "a_b", "a b", "a/b", "..", "a\n", "é", "a" * 64])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)
    assert RULES.violations(pb.GetProjectRequest(project_id=text)), "the contract's rule is the same"


@given(st.text(max_size=80))
def test_a_fence_is_read_back_or_refused(text: str) -> None:
    try:
        fence = Fence.parse(text)
    except Invalid:
        return
    assert Fence.parse(str(fence)) == fence
    assert is_id(fence.job_id)
    assert fence.number > 0
