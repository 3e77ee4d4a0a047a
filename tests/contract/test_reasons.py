"""Why jobs end is a table (services/common/reasons): the code, the protos and the documentation say the same."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import click
import pytest

from services.cli.main import cli
from services.common.errors import Exhausted, ServiceError
from services.common.reasons import REASONS, Source, is_listed, with_advice
from services.execution.model import Reason
from services.lifecycle.failures import _INVALID, INTERNAL, explained
from services.lifecycle.model.policy import DEFAULT_POLICY, NEVER_RETRIED, RETRY_ON
from services.lifecycle.nodes.retries import _PASSING
from tests.contract.test_house_rules import SOURCES, calls, raised_reasons, tree
from tests.kit.contract import ROOT, documented_reasons, files, methods, reasons_in

PAGE = ROOT / "docs" / "reasons.md"
NODES = (Source.WORKSPACE, Source.GIT, Source.EXECUTION)

NEVER_REACHES_A_JOB = {
    "INVALID_FIELDS": "bad input is refused at admission; what only git can find out becomes a reason of its stage",
    "STALE_FENCE": "the driver that hears it has lost the job, and leaves it to its new owner",
    "REQUEST_ID_REUSED": "ids are made from the attempt's, and their requests from the job as admitted",
    "WORKSPACE_NOT_FOUND": "only cleanup asks for a workspace that may be gone, and then nothing is left to do",
    "WORKSPACE_STATE": "only cleanup meets a workspace that is being removed, and its failure changes no job's end",
    "EXECUTION_STATE": "to stop what has ended is a success",
    "EVENTS_OUT_OF_RANGE": "events are read from before the last one that the execution has reported",
    "TOO_MANY_CALLS": "it is waited for, and ends as NODE_LOST",
    "TOO_MANY_FAILURES": "it is waited for, and ends as NODE_LOST",
    "DATABASE_UNAVAILABLE": "it is waited for, and ends as NODE_LOST",
    "DRAINING": "it is waited for, and ends as NODE_LOST",
    "MACHINE_BUSY": "it is waited for, and ends as NODE_LOST",
    "REPOSITORY_BUSY": "it is waited for, and ends as NODE_LOST",
    "TOO_MANY_EXECUTIONS": "it is waited for, and ends as NODE_LOST",
    "WORKSPACE_HELD": "it is waited for, and ends as NODE_LOST",
    "WORKSPACE_NOT_MOUNTED": "it is waited for, and ends as NODE_LOST",
}
"""What nodes may refuse a job's calls with, and why no job ends with it."""


@cache
def calls_of_jobs() -> frozenset[tuple[str, str]]:
    """Return (service, RPC) of each call that the lifecycle makes for a job."""
    rooms = {"workspaces.py": "workspace", "git.py": "git", "executions.py": "execution"}
    return frozenset(
        (rooms[path.name], node.attr)
        for path in SOURCES
        if path.parent == ROOT / "services" / "lifecycle" / "nodes" and path.name in rooms
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "_stub"
    )


def refusals() -> Iterator[tuple[str, str, str]]:
    """Yield (service, RPC, reason) of what a node may refuse a job's calls with, by the protos and by the code."""
    documented: dict[str, set[str]] = {node.value: set() for node in NODES}
    for method in methods():
        service = method.file.package.split(".")[1]
        if service in documented:
            reasons = {reason for _, reason in reasons_in(method.comment + method.service_comment)}
            documented[service] |= reasons
            if (service, method.proto.name) in calls_of_jobs():
                yield from ((service, method.proto.name, reason) for reason in sorted(reasons))
    for place, _, reason in raised_reasons():  # without a word in the service's own contract: on any RPC
        service = place.split("/")[1]
        if service in documented and reason not in documented[service]:
            yield service, place, reason


def failures_in(folder: str) -> set[str]:
    """Return the reasons of the `Failure`s that the code of a folder makes."""
    reasons = set()
    for path in SOURCES:
        if not path.is_relative_to(ROOT / "services" / folder):
            continue
        constants = {
            target.id: node.value.value
            for node in tree(path).body
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for name, call in calls(path):
            if name == "Failure" and call.args:
                first = call.args[0]
                reason = constants.get(first.id) if isinstance(first, ast.Name) else getattr(first, "value", None)
                if isinstance(reason, str):
                    reasons.add(reason)
    return reasons


def sources_of(*sources: Source) -> set[str]:
    """Return the reasons that the table has from any of these."""
    return {row.reason for row in REASONS.values() if set(row.sources) & set(sources)}


def test_the_calls_of_jobs_are_found() -> None:
    assert {("workspace", "CreateWorkspace"), ("git", "Push"), ("execution", "StartExecution")} <= calls_of_jobs()
    assert {(service, name) for service, name, _ in refusals()} >= calls_of_jobs()


def test_a_nodes_refusal_is_in_the_table_or_never_reaches_a_job() -> None:
    """Without a row it would end the job as INTERNAL, which tells nobody what to do."""
    missing = [
        f"{service}.{name}: {reason}"
        for service, name, reason in refusals()
        if reason not in NEVER_REACHES_A_JOB
        if reason not in REASONS or (Source(service) not in REASONS[reason].sources and reason != INTERNAL.reason)
    ]
    assert missing == []


def test_nothing_is_listed_as_never_reaching_a_job_that_does_or_that_is_gone() -> None:
    assert set(NEVER_REACHES_A_JOB) <= {reason for _, _, reason in refusals()}
    assert set(NEVER_REACHES_A_JOB).isdisjoint(REASONS)
    waited_for = {reason for reason, why in NEVER_REACHES_A_JOB.items() if "waited for" in why}
    assert waited_for >= _PASSING
    documented = documented_reasons()
    assert all(documented[reason] <= {"UNAVAILABLE", "RESOURCE_EXHAUSTED"} for reason in waited_for - _PASSING)


@pytest.mark.parametrize("source", NODES)
def test_a_row_of_a_nodes_is_a_refusal_or_an_end_of_that_node(source: Source) -> None:
    possible = {reason for service, _, reason in refusals() if service == source}
    if source is Source.EXECUTION:
        assert {reason.value for reason in Reason} <= sources_of(source), "an execution's end"
        possible |= {reason.value for reason in Reason}
    if source is Source.GIT:
        possible |= set(_INVALID.values())
    assert sources_of(source) - possible == set()


def test_a_row_of_the_lifecycles_is_raised_there() -> None:
    lost = {"NODE_LOST"}  # NodeLost: an error, which becomes a failure as a refusal does
    own = failures_in("lifecycle")
    assert own | lost == sources_of(Source.DRIVER, Source.HOOK, Source.PERSON)
    assert failures_in("gateway") == sources_of(Source.LEDGER)


def test_what_is_retried_by_default_is_what_it_was() -> None:
    """Stored jobs have the list, in this order; a change of it is a change for users."""
    assert RETRY_ON == (
        "NODE_LOST",
        "NODE_BUSY",
        "RUNNER_LOST",
        "SANDBOX_FAILED",
        "CLONE_FAILED",
        "REMOTE_UNREACHABLE",
        "DISK_FULL",
        "MODEL_UNAVAILABLE",
    )
    assert DEFAULT_POLICY.retry_on == RETRY_ON
    assert {"BUDGET_EXCEEDED", "CANCELLED", "EXPIRED", "REJECTED", "VETOED"} == NEVER_RETRIED


def test_every_reason_but_internal_is_passed_on_with_its_text() -> None:
    for row in REASONS.values():
        failure = explained(ServiceError(row.reason, "the facts"), "workspace")
        assert failure.reason == row.reason
        assert (failure.message == "the facts") is (row.reason != "INTERNAL")
    assert explained(Exhausted("NOT_IN_THE_TABLE", "secret words"), "workspace") == INTERNAL


def test_rows_are_whole() -> None:
    for row in REASONS.values():
        assert re.fullmatch(r"[A-Z][A-Z_]+", row.reason)
        assert row.sources
        for text in (row.meaning, row.advice):
            assert text, row.reason
            assert not text.endswith("."), text
            assert "|" not in text, "it is a cell of a table"


def test_advice_follows_a_message_that_has_none() -> None:
    advice = "`boatyard run --memory SIZE` raises the limit"
    told = with_advice("MEMORY_LIMIT", "it needed more than 64 bytes (memory_bytes)")
    assert told == f"it needed more than 64 bytes (memory_bytes); {advice}"
    assert with_advice("MEMORY_LIMIT", told) == told
    assert with_advice("MEMORY_LIMIT", "") == advice
    hinted = "the push was refused: no\nThe server wants a token, or another one"
    assert with_advice("REMOTE_ACCESS_DENIED", hinted) == hinted
    assert with_advice("PUSH_REJECTED", "the push was refused: no").startswith("the push was refused: no; check the")
    assert with_advice("REJECTED", "not like this") == "not like this"
    assert with_advice("A_CLIENTS_OWN", "it broke") == "it broke"
    assert with_advice("", "") == ""


def test_messages_that_give_advice_themselves_exist() -> None:
    sources = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in SOURCES if path.parent.name != "reasons"
    )
    words = {words for row in REASONS.values() for words in row.advised_by if words}
    assert {each for each in words if each not in sources} == set()


def commands() -> Iterator[tuple[str, set[str]]]:
    """Yield each command of the command line, with its options."""

    def below(name: str, command: click.Command) -> Iterator[tuple[str, set[str]]]:
        yield name, {option for parameter in command.params for option in parameter.opts}
        if isinstance(command, click.Group):
            context = click.Context(command)
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                assert found is not None
                yield from below(f"{name} {each}".strip(), found)

    yield from below("", cli)


def test_advice_names_commands_options_and_settings_that_exist() -> None:
    known = dict(commands())
    settings = "".join(path.read_text() for path in SOURCES if path.name == "settings.py")
    for row in REASONS.values():
        for typed in re.findall(r"`boatyard ([^`]*)`", row.advice):
            words = typed.split()
            name = " ".join(word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"))
            assert name in known, typed
            assert {word for word in words if word.startswith("--")} <= known[name], typed
        for name in re.findall(r"BOATYARD_[A-Z]+_([A-Z_]+)", row.advice):
            assert f"    {name.lower()}: " in settings, name


def test_the_contract_names_every_reason_of_a_job() -> None:
    comments = [each.leading_comments for file in files() for each in file.source_code_info.location]
    (of_jobs,) = [text for text in comments if "docs/reasons.md" in text]
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", of_jobs))
    assert set(REASONS) - named == set()
    (retried,) = [text for text in comments if "The job reasons after which there is another attempt" in text]
    assert set(RETRY_ON) | NEVER_RETRIED <= set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", retried))


def page() -> str:
    """Return what docs/reasons.md should be."""
    rows = [
        f"| `{row.reason}` | {row.meaning} | {', '.join(row.sources)} | {row.retried} | {row.advice} |"
        for row in REASONS.values()
    ]
    return "\n".join([*_HEAD.splitlines(), *rows, ""])


_HEAD = """\
# Why a job ends without success

A job that FAILED has a `reason`, for programs, and a `message`, for people: the facts, and what can be done about it.
So has each of its executions. `boatyard show` and `boatyard run` print both.

- **found by**: workspace, git and execution are the cell's services, which refuse a call or report how a program ended;
  the driver carries the job out; the ledger notices that a machine is lost; hooks and people decide.
- **retried**: *yes*, unless the job's policy has a list of its own (`--retry-on`); *no*, unless that list has the
  reason; *never*, and no list may have it.

A client that runs jobs itself (`CoordinatorService.FailJob`) may give reasons of its own, which are not here.

This page is made from the table in `services/common/reasons`; a test compares the two.

| reason | what happened | found by | retried | what you can do |
|---|---|---|---|---|
"""


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == page(), f"docs/reasons.md should be:\n{page()}"


def test_a_list_from_before_a_reason_had_its_name_means_it_too() -> None:
    assert is_listed("REMOTE_UNREACHABLE", ("CLONE_FAILED",))
    assert is_listed("REMOTE_UNREACHABLE", ("REMOTE_UNREACHABLE",))
    assert not is_listed("CLONE_FAILED", ("REMOTE_UNREACHABLE",))
    assert not is_listed("REMOTE_MOVED", ("CLONE_FAILED",))
    assert not is_listed("A_CLIENTS_OWN", ("CLONE_FAILED",))
    assert {row.part_of for row in REASONS.values()} <= {"", *REASONS}
