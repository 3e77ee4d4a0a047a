"""The table of flags against the contract: what it lets people set, and where."""

import importlib

import click
import pytest
from boatyard.agent.v1 import agent_pb2
from boatyard.gateway.v1 import catalog_pb2, floor_pb2, job_pb2, policy_pb2
from click.testing import CliRunner
from google.protobuf.message import Message

from services.cli.fields import cases_of, fields_along
from services.cli.flag_table import FLOOR, RUN, SETTINGS
from services.cli.flags import fill
from services.cli.main import cli

ENGINE = fields_along(job_pb2.JobSpec, "agent.engine")[-1]
WITHOUT_FLAG = {
    "prompt": "the argument PROMPT",
    "agent": "a flag for each of its fields",
    "policy": "a flag for each of its fields",
    "replay": "a flag for each of its fields",
}


@pytest.mark.parametrize(
    ("message", "prefix"),
    [
        (agent_pb2.AgentSettings, "agent."),
        *((type(getattr(agent_pb2.AgentSettings(), name)), f"agent.{name}.") for name in cases_of(ENGINE)),
        (policy_pb2.Policy, "policy."),
        (job_pb2.JobSpec, ""),
    ],
)
def test_every_field_of_a_job_has_a_flag_or_a_reason(message: type[Message], prefix: str) -> None:
    paths = {flag.path for flag in RUN}
    paths |= {f"agent.{engine}" for engine in cases_of(ENGINE)}  # --engine
    fields = {f"{prefix}{name}" for name in message.DESCRIPTOR.fields_by_name}

    assert {field for field in fields if field not in paths} == {name for name in WITHOUT_FLAG if name in fields}


def test_every_field_of_a_floor_has_a_flag() -> None:
    paths = {flag.path for flag in FLOOR} | {"floor.limits"}
    fields = {f"floor.{name}" for name in floor_pb2.Floor.DESCRIPTOR.fields_by_name}
    fields |= {f"floor.limits.{name}" for name in floor_pb2.Limits.DESCRIPTOR.fields_by_name}
    assert paths == fields
    project = catalog_pb2.Project()
    fill(project, FLOOR, {"floor_sandbox": ("container",), "floor_memory": 1 << 30, "protect": (".github",)})
    assert (list(project.floor.sandbox_tiers), project.floor.limits.memory_bytes) == ([3], 1 << 30)


def parameters(name: str) -> dict[str, click.Parameter]:
    group, _, verb = name.partition(" ")
    command = importlib.import_module(f"services.cli.commands.{group}").command
    command = command.commands[verb] if verb else command
    return {option: parameter for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize(
    "name", ["run", *(f"{group} {verb}" for group in ("template", "worker", "item") for verb in ("create", "update"))]
)
def test_every_command_takes_every_setting(name: str) -> None:
    declared = parameters(name)

    for flag in SETTINGS:
        assert declared[flag.option].help == flag.help, f"{name} {flag.option}"


def test_what_hosts_need_comes_with_them_unless_something_else_was_given() -> None:
    spec = job_pb2.JobSpec()
    assert set(fill(spec, RUN, {"allow_host": ("example.com",), "network": "open"})) == {
        *("agent.allowed_hosts", "agent.network")
    }
    assert spec.agent.network == 2, "open as it was given"
    assert set(fill(spec, RUN, {"allow_host": ("example.com",)})) == {"agent.allowed_hosts", "agent.network"}
    assert spec.agent.network == 3, "an allow list"


def test_an_engine_is_chosen_by_its_name_or_by_its_settings() -> None:
    spec = job_pb2.JobSpec()
    assert fill(spec, RUN, {"engine": "anthropic"}) == ["agent.anthropic"]
    assert spec.agent.WhichOneof("engine") == "anthropic"
    fill(spec, RUN, {"engine": "anthropic", "max_tokens": 5})
    assert spec.agent.anthropic.max_tokens == 5
    fill(spec, RUN, {"terminal": True})
    assert spec.agent.command.terminal
    with pytest.raises(click.UsageError, match="--engine is for engine anthropic, --terminal is for engine command"):
        fill(spec, RUN, {"engine": "anthropic", "terminal": True})


def test_what_is_not_given_is_left_to_the_gateway() -> None:
    spec = job_pb2.JobSpec()

    assert fill(spec, RUN, {flag.name: None for flag in RUN}) == []
    assert spec == job_pb2.JobSpec()


def test_no_two_flags_have_one_name() -> None:
    assert len({flag.option for flag in RUN}) == len({flag.name for flag in RUN}) == len(RUN)


@pytest.mark.parametrize(
    ("name", "first"),
    [("run", "Job"), ("template create", "Template"), ("worker update", "Worker"), ("item create", "Item")],
)
def test_help_has_the_flags_under_their_headings_within_80_columns(name: str, first: str) -> None:
    lines = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=80).output.splitlines()
    headings = [line.rstrip(":") for line in lines if line.endswith(":") and not line.startswith(" ")]

    more = [FLOOR[0].group] if name == "template create" else []
    assert headings == [first, *dict.fromkeys(flag.group for flag in SETTINGS), *more, "Options"]
    assert max(map(len, lines)) <= 80


def test_a_project_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_PROJECT", "harbour")
    for name in ("run", "template create", "worker create", "item create", "repository create", "item list", "ps"):
        command = click.Command(name, params=[parameters(name)["--project"]])
        assert command.make_context(name, []).params == {"project": "harbour"}, name
    token = click.Command("token create", params=[parameters("token create")["--project"]])
    assert token.make_context("token create", []).params == {"projects": ()}, "what a token is for is said, not assumed"
