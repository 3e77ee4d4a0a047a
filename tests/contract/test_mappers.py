"""Every mapper of the services: what is written of a value is read as the same value."""

import importlib
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.rpc.mapper import Mapper
from tests.kit.contract import ROOT

INTEGERS = st.integers(0, 2**31 - 1)
"""Of every integer type of the contract."""
TEXTS = st.text(max_size=20)
LONGEST = timedelta(days=3_000_000)

st.register_type_strategy(int, INTEGERS)
st.register_type_strategy(str, TEXTS)
st.register_type_strategy(bytes, TEXTS.map(str.encode))
st.register_type_strategy(float, INTEGERS.map(lambda number: number / 1024))
st.register_type_strategy(
    Path, TEXTS.filter(lambda text: text.strip("\0/.") == text != "").map(lambda text: Path("/") / text)
)
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(timedelta, st.timedeltas(-LONGEST, LONGEST))


def mappers() -> Iterator[Any]:
    """Yield the mappers that modules of the services declare."""
    for path in sorted((ROOT / "services").rglob("*.py")):
        if "= Mapper(" in path.read_text():
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for name, value in vars(importlib.import_module(module)).items():
                if isinstance(value, Mapper):
                    yield pytest.param(value, id=f"{module}.{name}")


@pytest.mark.parametrize("mapper", [*mappers()])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_written_is_read_as_the_same_value(mapper: Mapper[Any, Any], data: st.DataObject) -> None:
    value = data.draw(st.builds(mapper.value, **{field.name: ... for field in fields(mapper.value)}))
    by_hand = {name: getattr(value, name) for name in mapper.by_hand if hasattr(value, name)}

    assert mapper.from_proto(mapper.to_proto(value), **by_hand) == value
