"""The rules of the code (STYLE, section 2) that no linter has."""

import ast
import os
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from services.agent.engines import ENGINES
from services.agent.settings import DEFAULT_ENGINE
from services.common import errors
from tests.kit.contract import ROOT, documented_reasons

MAX_LINES = 500
SOURCES = sorted((ROOT / "services").rglob("*.py"))
REASON_FIRST = {"FailedPrecondition", "Aborted", "Exhausted", "Unavailable", "peer_unavailable"}
SUFFIXES = {"NotFound": "_NOT_FOUND", "AlreadyExists": "_EXISTS"}
_WRITES = {"print", "click.echo", "click.secho", "sys.stdout", "sys.stderr"}
# The gRPC client raises it by itself, so no service documents it.
WITHOUT_PROTO = {"DEADLINE_EXCEEDED"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call with the last part of the called name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            yield name, node


def location(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def is_common(path: Path) -> bool:
    return path.is_relative_to(ROOT / "services" / "common")


def test_no_module_is_too_long() -> None:
    modules = [path for top in ("services", "tests", "bench", "examples") for path in (ROOT / top).rglob("*.py")]
    assert [str(path) for path in modules if len(path.read_text().splitlines()) > MAX_LINES] == []


def test_no_name_of_a_test_comes_from_a_clock_or_by_chance() -> None:
    # Each worker collects the tests by itself, and all must find the same names.
    changing = {"compress", "new_id", "now", "randint", "random", "time", "token_hex", "urandom", "uuid4"}
    violations = [
        location(path, inner)
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name, call in calls(path)
        if name == "parametrize" and not any(keyword.arg == "ids" for keyword in call.keywords)
        for inner in ast.walk(call)
        if isinstance(inner, ast.Call) and getattr(inner.func, "attr", getattr(inner.func, "id", "")) in changing
    ]
    assert violations == []


def test_only_shared_code_says_unavailable_or_aborts() -> None:
    forbidden = {"Unavailable", "abort", "abort_with_status", "set_code"}
    violations = [
        location(path, node)
        for path in SOURCES
        if not is_common(path)
        for name, node in calls(path)
        if name in forbidden and not ast.unparse(node.func).endswith(".transport.abort")  # asyncio's own
    ]
    assert violations == []


def test_every_rpc_is_served_by_a_coroutine_or_an_async_generator() -> None:
    """The server refuses a plain function, even one that returns an async generator, but only when it is called."""
    plain = [
        location(path, method)
        for path in SOURCES
        if "servicer" in path.relative_to(ROOT).with_suffix("").parts
        for method in ast.walk(tree(path))
        if isinstance(method, ast.FunctionDef) and method.name[0].isupper()
    ]
    assert plain == []


# Modules that read only JSON that we, or programs that we trust with more than that, wrote.
READ_OUR_OWN_JSON = (
    *("common/untrusted_json.py", "supervisor/plan.py", "gateway/routing/forwarding.py"),
    *("sandbox/container_engines.py", "git/caveats.py", "git/stores/artifacts.py", "git/disk/base_cache.py"),
    *("execution/rundir/directory.py", "execution/eventlog/records.py", "execution/inbox/questions.py"),
    *("execution/processes/sandboxed.py", "execution/cgroups/group.py", "execution/egress/child.py"),
    *(
        "execution/egress/__main__.py",
        "execution/credentials.py",
        "execution/door/child.py",
        "execution/door/prices.py",
        "execution/toolbox/serve.py",
        "execution/engines/anthropic/history.py",
    ),
    *(
        "gateway/schema/sealing.py",
        "gateway/migrations/v0029_usage.py",
    ),
)


def test_json_of_others_is_read_within_bounds() -> None:
    """`json.loads` answers 200,000 brackets with a RecursionError, which nobody expects: see services/common."""
    readers = {path for path in SOURCES for name, node in calls(path) if name == "loads" and "json" in ast.dump(node)}
    assert {str(path.relative_to(ROOT / "services")) for path in readers} == set(READ_OUR_OWN_JSON)


def test_nothing_runs_between_fork_and_exec_of_a_child() -> None:
    violations = [
        location(path, node)
        for path in SOURCES
        for _, node in calls(path)
        if {keyword.arg for keyword in node.keywords} & {"preexec_fn", "user", "group", "extra_groups"}
        and "subprocess" in ast.unparse(node.func)
    ]
    assert violations == []


def test_fork_support_is_off_before_grpc_is_imported() -> None:
    assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert "import grpc" not in (ROOT / "services" / "__init__.py").read_text()


def test_what_the_command_line_writes_passes_the_screen() -> None:
    """`screen` keeps what others chose from being more than a part of a line; see decision 42."""
    cli = ROOT / "services" / "cli"
    # They must not import rich, whose import takes longer than all else they do. They use `display` themselves.
    without_rich = {cli / "exit_codes.py", cli / "options.py", cli / "main.py"}
    makes_streams = cli / "streams.py"
    violations = [
        location(path, node)
        for path in SOURCES
        if path.is_relative_to(cli) and path not in {cli / "screen.py", makes_streams, *without_rich}
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in _WRITES)
        or (isinstance(node, ast.ImportFrom | ast.Import) and ast.unparse(node).split()[1].startswith("rich"))
    ]
    assert violations == []


@pytest.mark.parametrize("top", ["tests", "services"])
def test_every_folder_is_a_package(top: str) -> None:
    """In tests, else names shadow one another; in services, else import-linter does not see what is in the folder."""
    folders = {path.parent for path in (ROOT / top).rglob("*.py")} - {
        ROOT / "services" / "common" / "db" / "environment"
    }
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_only_the_edge_speaks_grpc_and_protobuf() -> None:
    """The edge are the modules that import-linter lets import the stubs, and the shared code made for them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (edge,) = [
        one["allowed_importers"] for one in settings["contracts"] if one["name"] == "only the edge touches stubs"
    ]
    violations = [
        location(path, node)
        for path in SOURCES
        for module in [".".join(path.relative_to(ROOT).with_suffix("").parts)]
        if not any(fnmatchcase(module, pattern) for pattern in [*edge, "services.common.rpc.*"])
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom | ast.Import)
        if ast.unparse(node).split()[1].split(".")[0] in {"grpc", "google"}
    ]
    assert violations == []


@pytest.mark.parametrize("node", ["workspace", "git", "execution"])
def test_node_services_call_nobody(node: str) -> None:
    """They may use each other's message types, such as a layout; only the gateway has stubs to call others."""
    calling = [
        location(path, statement)
        for path in (ROOT / "services" / node).rglob("*.py")
        for statement in ast.walk(tree(path))
        if isinstance(statement, ast.ImportFrom | ast.Import)
        for text in [ast.unparse(statement)]
        if "_pb2_grpc" in text and f"boatyard.{node}." not in text
    ]
    assert calling == []


def asks_which_engine(node: ast.AST) -> bool:
    """True when a piece of code compares something with an engine's name."""
    match node:
        case ast.Compare():
            operands = [node.left, *node.comparators]
            values = [
                each
                for one in operands
                for each in (one.elts if isinstance(one, ast.List | ast.Set | ast.Tuple) else [one])
            ]
        case ast.MatchValue():
            values = [node.value]
        case _:
            return False
    return any(isinstance(value, ast.Constant) and value.value in ENGINES for value in values)


def test_only_an_engines_own_room_asks_which_engine_it_is() -> None:
    """Others ask for its traits (`services.agent.engines`), so that a new engine is nobody else's concern."""
    rooms = ROOT / "services" / "execution" / "engines"
    violations = [
        location(path, node)
        for path in SOURCES
        if not path.is_relative_to(rooms)
        for node in ast.walk(tree(path))
        if asks_which_engine(node)
        or {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
        & {"is_model", "is_command", "MODEL_ENGINE"}
    ]
    assert violations == []


def test_an_engine_is_named_in_its_own_room_alone() -> None:
    """Also where nothing is compared: as a key, a prefix, an alias. The default's name means other things too."""
    rooms = ROOT / "services" / "execution" / "engines"
    elsewhere = {
        "services/agent/settings.py",  # what is set for each
        "services/agent/stored.py",  # what was set for each in an earlier version
        "services/execution/rundir/documents.py",  # plans of an earlier version name no engine
        "services/lifecycle/settings.py",  # a provider of that name
        "services/redaction/formats.py",  # the form of a provider's keys
    }
    names = ENGINES.keys() - {DEFAULT_ENGINE}
    violations = [
        location(path, node)
        for path in SOURCES
        if not path.is_relative_to(rooms) and str(path.relative_to(ROOT)) not in elsewhere
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert violations == []


def raised_reasons() -> Iterator[tuple[str, str, str]]:
    """Yield (location, status, reason) of each error that a service makes with a reason written in the code."""
    for path in [path for path in SOURCES if not path.is_relative_to(ROOT / "services" / "cli")]:
        for name, node in calls(path):
            if name == "ResourceTable" and isinstance(node.args[0], ast.Constant):  # a catalogue table raises both
                noun = str(node.args[0].value).upper().replace(" ", "_")
                yield location(path, node), errors.NotFound.status.value, f"{noun}_NOT_FOUND"
                yield location(path, node), errors.AlreadyExists.status.value, f"{noun}_EXISTS"
            kind = getattr(errors, name, None)
            if not (isinstance(kind, type) and issubclass(kind, errors.ServiceError)):
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            first = node.args[0] if node.args else None
            reason = keywords.get("reason", first if name in REASON_FIRST else None)
            suffix = ""
            if reason is None and name in SUFFIXES:
                reason, suffix = first, SUFFIXES[name]
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                text = reason.value.upper().replace(" ", "_").replace("-", "_") if suffix else reason.value
                yield location(path, node), kind.status.value, text + suffix


def test_every_reason_is_documented_with_its_status() -> None:
    documented = documented_reasons()
    missing = [
        f"{where}: {status} ({reason})"
        for where, status, reason in raised_reasons()
        if status not in documented.get(reason, ()) and reason not in WITHOUT_PROTO
    ]
    assert missing == []


def test_every_documented_reason_can_happen() -> None:
    written = {
        node.value
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    possible = {reason for _, _, reason in raised_reasons()} | written
    assert {reason for reason in documented_reasons() if reason not in possible} == set()
