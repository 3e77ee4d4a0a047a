"""The rules of the whole contract, evaluated by ours and by protovalidate: the same fields are wrong."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor_pool import Default

from services.common.rpc.rules import Rules, named_by_mask
from tests.kit.contract import ROOT, files, methods
from tests.kit.requests import request
from tests.unit.common.rpc.test_rules import KINDS

RULES = Rules()
REQUESTS = sorted(
    {method.proto.input_type.lstrip(".") for method in methods()} | {KINDS["Everything"].DESCRIPTOR.full_name}
)


for file in files():
    importlib.import_module(f"{file.name.removesuffix('.proto').replace('/', '.')}_pb2")


def paths_by_protovalidate(message: Any) -> Iterator[str]:
    """Yield the paths of fields that protovalidate complains about, as we write them."""
    for violation in protovalidate.collect_violations(message):
        path = ""
        for element in violation.proto.field.elements:
            path += f".{element.field_name}" if path else element.field_name
            if element.subscript is not None:
                is_text = element.subscript.field == "string_key"
                path += f'["{element.subscript.value}"]' if is_text else f"[{element.subscript.value}]"
        yield path


def compare(name: str, count: int) -> None:
    descriptor = Default().FindMessageTypeByName(name)
    valid = 0
    for seed in range(count):
        message = request(descriptor, seed)
        ours = {path for path, _ in RULES.violations(message)}
        theirs = [(path, "") for path in paths_by_protovalidate(message)]
        assert ours == {path for path, _ in named_by_mask(message, theirs)}, f"seed {seed}: {message}"
        valid += not ours
    assert valid, "no message is valid"


@pytest.mark.parametrize("name", REQUESTS)
def test_protovalidate_finds_the_same_fields_wrong(name: str) -> None:
    compare(name, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_protovalidate_finds_the_same_fields_wrong_in_many_messages(name: str) -> None:
    compare(name, 10_000)


def test_services_do_not_need_protovalidate() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [each for each in settings["dependencies"] if "protovalidate" in each]
    importing = re.compile(r"^\s*(import|from) protovalidate", re.MULTILINE)
    assert not [path for path in (ROOT / "services").rglob("*.py") if importing.search(path.read_text())]


def checks_in_code() -> Iterator[str]:
    """Yield the messages that are keys of `checks`, or that are given to a function of that name."""
    for path in (ROOT / "services").rglob("*.py"):
        tree = ast.parse(path.read_text())
        packages = {
            alias.asname or alias.name: (node.module or "").removeprefix("boatyard.")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("boatyard.")
            for alias in node.names
        }
        for node in ast.walk(tree):
            messages: list[Any] = []
            if isinstance(node, ast.Dict):
                keys = [key for key in node.keys if isinstance(key, ast.Attribute) and key.attr == "full_name"]
                messages = [key.value.value for key in keys if isinstance(key.value, ast.Attribute)]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "checks":
                messages = node.args
            for message in messages:
                match message:
                    case ast.Attribute(value=ast.Name(id=module), attr=name) if module in packages:
                        yield f"{packages[module]}.{name}"


def test_rules_that_are_in_code_are_listed() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "rules.md").read_text(), re.MULTILINE)
    found = set(checks_in_code())
    assert (found - set(listed), set(listed) - found) == (set(), set())
    assert listed == sorted(listed)
