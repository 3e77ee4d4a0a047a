"""Limits of machines and floors: read as they are written, and compared the same way wherever they are compared."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.allowance import DEFAULT_ALLOWANCE
from services.agent.limits import LIMITS, NO_LIMITS, Limits, above, bounded, covers, lowered, widest
from services.agent.settings import AgentSettings
from services.agent.wire import LIMITS as WIRE
from services.agent.wire import allowance_from_proto, allowance_to_proto
from services.sandbox.spec import Network, Tier

COUNTED = {"max_turns", "processes", "open_files"}
SPANS = st.integers(1, 9).map(lambda count: timedelta(seconds=count / 2))
AMOUNTS = {name: st.none() | (SPANS if "timeout" in name else st.integers(1, 9)) for name in LIMITS}
ANY_AMOUNTS = {
    name: st.none()
    | (
        st.timedeltas(timedelta(microseconds=1), timedelta(seconds=1 << 31, microseconds=-1))
        if "timeout" in name
        else st.integers(1, (1 << (31 if name in COUNTED else 63)) - 1)
    )
    for name in LIMITS
}
limits = st.builds(Limits, **AMOUNTS)
agents = st.builds(AgentSettings, **AMOUNTS)


@given(st.builds(Limits, **ANY_AMOUNTS))
def test_limits_are_read_as_they_are_written(some: Limits) -> None:
    assert Limits.parse(str(some)) == some
    assert WIRE.from_proto(WIRE.to_proto(some)) == some


@given(limits)
def test_a_caller_is_told_all_that_a_machine_allows(some: Limits) -> None:
    allowance = replace(DEFAULT_ALLOWANCE, limits=some)
    told = allowance_to_proto(allowance)
    assert allowance_from_proto(told["allowed_tiers"], told["allowed_networks"], told["limits"]) == allowance


@given(limits, limits, agents)
def test_what_covers_others_allows_all_that_they_allow(one: Limits, other: Limits, agent: AgentSettings) -> None:
    wide, narrow = replace(DEFAULT_ALLOWANCE, limits=one), replace(DEFAULT_ALLOWANCE, limits=other)
    choice = Tier.BUBBLEWRAP, Network.NONE, Limits.of(agent)
    if wide.covers(narrow) and narrow.allows(*choice):
        assert wide.allows(*choice)
    both = widest([one, other])
    assert covers(both, one)
    assert covers(both, other)
    assert covers(NO_LIMITS, one)


@given(limits, agents)
def test_no_limit_is_exceeded_and_nothing_is_loosened(most: Limits, agent: AgentSettings) -> None:
    for name in LIMITS:
        asked, bound = getattr(agent, name), getattr(most, name)
        values = [value for value in (asked, bound) if value is not None]
        assert getattr(bounded(agent, most), name) == min(values, default=None)
        assert getattr(lowered(agent, most), name) == (None if asked is None else min(values))
    assert not list(above(lowered(agent, most), most))


def test_limits_are_written_by_people() -> None:
    read = Limits.parse(" timeout = 1.5 , memory_bytes=8589934592,, ")
    assert read == Limits(timeout=timedelta(seconds=1.5), memory_bytes=8 << 30)
    assert Limits.parse("") == NO_LIMITS


def test_what_a_later_version_limits_besides_is_left_out_of_what_is_recorded() -> None:
    assert Limits.recorded("gpus=2,timeout=1.5,bandwidth=fast") == Limits(timeout=timedelta(seconds=1.5))
    assert Limits.recorded("") == NO_LIMITS


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory=1", "'memory' is no limit: there are timeout, "),
        ("scratch_bytes=1", "is no limit"),
        ("timeout", "timeout= is not a number of seconds"),
        ("timeout=2h", "timeout=2h is not a number of seconds"),
        ("processes=1.5", "processes=1.5 is not a number"),
        ("timeout=nan", "not a number"),
        ("timeout=inf", "not a number"),
        ("timeout=1e300", "not a number"),
        ("processes=0", "out of range"),
        ("memory_bytes=-1", "out of range"),
        ("processes=4294967296", "out of range"),
        (f"memory_bytes={1 << 63}", "out of range"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Limits.parse(text)
