"""The rules of the whole contract, evaluated by ours and by protovalidate: the same fields are wrong."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default

from services.common.rpc.rules import Check, Rules, named_by_mask
from services.common.settings import Home
from services.execution.presets.presets import Presets
from services.execution.presets.tools import ToolPaths
from services.execution.service.path_guard import PathGuard
from services.execution.settings import ExecutionSettings
from services.execution.wire.start import StartReader
from services.gateway.budgets import wire as budget_wire
from services.gateway.catalog import update_wire
from services.gateway.door.tokens import wire as token_wire
from services.gateway.hooks import wire as hook_wire
from services.gateway.wire import policy
from services.git.paths import GitPaths
from services.git.remote.addresses import AddressBook
from services.git.remote.file_repository import FileRoots
from services.git.wire.checks import checks as git_checks
from services.lifecycle.webhooks import AllowList
from services.workspace import wire as workspace
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


def is_in_a_wrong_list(path: str, wrong: set[str]) -> bool:
    """True for an entry of a list or map that is wrong as a whole, which ours does not look into."""
    return any(path[:end] in wrong for end, character in enumerate(path) if character == "[")


def compare(name: str, count: int) -> None:
    descriptor = Default().FindMessageTypeByName(name)
    valid = 0
    for seed in range(count):
        message = request(descriptor, seed)
        ours = {path for path, _ in RULES.violations(message)}
        theirs = set(paths_by_protovalidate(message))
        said = [(path, "") for path in theirs if not is_in_a_wrong_list(path, theirs)]
        assert ours == {path for path, _ in named_by_mask(message, said)}, f"seed {seed}: {message}"
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


WITHOUT_RULE = {
    # The checks in code have these: see docs/rules.md.
    "boatyard.gateway.v1.AppendEventsRequest.events",
    "boatyard.gateway.v1.Hook.stage",
    "boatyard.gateway.v1.InputFile.content",
    "boatyard.gateway.v1.JobSpec.kind",
    "boatyard.gateway.v1.Webhook.secret",
    "boatyard.git.v1.WorkingTree.read_only_paths",
    "boatyard.workspace.v1.File.content",
    # Any number is right.
    "boatyard.gateway.v1.Hook.order",
    # These are read in responses alone.
    "boatyard.agent.v1.Replay.size_bytes",
    "boatyard.gateway.v1.InputFile.size_bytes",
    "boatyard.gateway.v1.Provider.key_count",
    "boatyard.gateway.v1.Token.creator",
    "boatyard.gateway.v1.Token.token_id",
    "boatyard.gateway.v1.WorkItem.state",
    # A driver's own records, which the gateway keeps as they are.
    "boatyard.ledger.v1.EndStageRequest.notes",
    "boatyard.ledger.v1.FinishJobRequest.outcome",
    "boatyard.ledger.v1.NoteExecutionRequest.note",
    "boatyard.ledger.v1.ParkJobRequest.question",
    "boatyard.ledger.v1.ReadDocumentRequest.outcome",
    "boatyard.ledger.v1.RecordHookCallRequest.call",
    "boatyard.ledger.v1.ReserveModelUseRequest.need",
    "boatyard.ledger.v1.RetryLaterRequest.retry",
    "boatyard.ledger.v1.SettleModelUseRequest.use",
}
WHOLE = {"boatyard.execution.v1.Event"}
"""Messages that are kept as they are, whatever is in them."""


def fields_in(descriptor: Descriptor, known: set[str]) -> Iterator[FieldDescriptor]:
    """Yield all fields that a message can have, and the messages in it; maps are one field."""
    if descriptor.full_name in known or descriptor.full_name.startswith("google."):
        return
    known.add(descriptor.full_name)
    for field in descriptor.fields:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.message_type is None or field.is_repeated:
            yield field
        if field.message_type is not None and not is_map:
            yield from fields_in(field.message_type, known)


def test_every_field_of_a_request_has_a_rule() -> None:
    """So nothing without a bound reaches a database, git, a file or a process. A page token is bound to its list."""
    ours = {name for name in REQUESTS if not name.startswith(("boatyard.test.", "boatyard.hook."))}  # we call hooks
    free = {
        field.full_name
        for name in ours
        for field in fields_in(Default().FindMessageTypeByName(name), set(WHOLE))
        if field.type != FieldDescriptor.TYPE_BOOL and field.name != "page_token"
        if not field.GetOptions().HasExtension(validate_pb2.field)
    }
    assert free == WITHOUT_RULE


WITHOUT_LENGTH = {
    "boatyard.gateway.v1.AppendEventsRequest.events",
    "boatyard.git.v1.WorkingTree.read_only_paths",
    "boatyard.ledger.v1.EndStageRequest.notes",
    "boatyard.workspace.v1.Layers.lowers",
}
"""Lists that only services of ours send, or that the checks in code bound."""


def test_every_list_of_a_request_has_a_length() -> None:
    """So a few megabytes of wrong entries, each with its own complaint, do not cost a service a gigabyte."""
    ours = {name for name in REQUESTS if not name.startswith(("boatyard.test.", "boatyard.hook."))}
    rules = {
        field.full_name: field.GetOptions().Extensions[validate_pb2.field]
        for name in ours
        for field in fields_in(Default().FindMessageTypeByName(name), set(WHOLE))
        if field.is_repeated
    }
    assert {name for name, each in rules.items() if not each.repeated.max_items + each.map.max_pairs} == WITHOUT_LENGTH


def all_checks(home: Home) -> Mapping[str, Check]:
    execution = StartReader(
        ExecutionSettings(data_directory=home.root), PathGuard(home), Presets.load(None, ToolPaths())
    )
    return {
        **workspace.CHECKS,
        **git_checks(AddressBook(FileRoots((home.root,), (), home.root)), GitPaths(home)),
        **hook_wire.checks(AllowList.parse("")),
        **budget_wire.CHECKS,
        **update_wire.CHECKS,
        **token_wire.CHECKS,
        **policy.CHECKS,
        "boatyard.execution.v1.StartExecutionRequest": execution.check,
    }


@pytest.mark.parametrize("name", REQUESTS)
def test_checks_in_code_stand_whatever_else_is_wrong(name: str, tmp_path: Path) -> None:
    """They are called with messages that break the other rules, and say what is wrong instead of failing."""
    rules = Rules(all_checks(Home(tmp_path)))
    for seed in range(100):
        for path, complaint in rules.violations(request(Default().FindMessageTypeByName(name), seed)):
            assert path
            assert complaint


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
