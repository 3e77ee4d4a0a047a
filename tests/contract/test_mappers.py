"""Every mapper of the services: what is written of a value is read as the same value."""

import collections.abc
import importlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.rpc.mapper import Mapper
from tests.kit.contract import ROOT

LONGEST = timedelta(days=3_000_000)
TEXTS = st.text(max_size=20)
INTEGERS = st.integers(0, 2**31 - 1)
"""Of every integer type of the contract."""
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    NoneType: st.none(),
    str: TEXTS,
    bytes: TEXTS.map(str.encode),  # text, in most messages
    bool: st.booleans(),
    int: INTEGERS,
    float: INTEGERS.map(lambda number: number / 64),
    Path: st.from_regex(r"(/[^/\0.]+)+", fullmatch=True).map(Path),
    datetime: st.datetimes(timezones=st.just(UTC)),
    timedelta: st.timedeltas(-LONGEST, LONGEST),
}


def values_of(kind: Any, without: frozenset[str] = frozenset()) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a type, with None in some of its fields. Hypothesis's own is for all tests."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    if isinstance(kind, TypeVar):  # for what is open
        return st.none()
    if is_dataclass(get_origin(kind)):
        return values_of(get_origin(kind))
    if is_dataclass(kind):
        hints = {name: NoneType if name in without else hint for name, hint in get_type_hints(kind).items()}
        return st.builds(kind, **{field.name: values_of(hints[field.name]) for field in fields(kind)})  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    arguments = [values_of(each) for each in get_args(kind) if each is not Ellipsis]
    match get_origin(kind):
        case None:
            return st.sampled_from(list(kind))
        case collections.abc.Mapping:
            return st.dictionaries(*arguments, max_size=3)
        case origin if origin in {tuple, frozenset}:
            return st.lists(arguments[0], max_size=3).map(origin)
        case _:
            return st.one_of(arguments)


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
    value = data.draw(values_of(mapper.value, mapper.by_hand))
    others = [field.name for oneof in mapper.message.DESCRIPTOR.oneofs for field in oneof.fields[1:]]
    value = replace(value, **{name: None for name in others if hasattr(value, name) and name not in mapper.by_hand})
    by_hand = dict.fromkeys(field.name for field in fields(value) if field.name in mapper.by_hand)

    assert mapper.from_proto(mapper.to_proto(value), **by_hand) == value
