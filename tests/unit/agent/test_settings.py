"""Layers of settings: set fields win, unset ones inherit, maps are merged, another engine replaces one as a whole."""

from dataclasses import replace
from datetime import timedelta

import pytest
from boatyard.agent.v1 import agent_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from services.agent.settings import (
    DEFAULTS,
    MODEL_TOOLS,
    AgentSettings,
    AnthropicEngine,
    CommandEngine,
    PromptDelivery,
    overlay,
    with_secrets_apart,
)
from services.agent.stored import StoredAgentSettings
from services.agent.wire import AGENT, CHECKS
from services.common.rpc.rules import Rules
from services.execution import toolbox
from services.sandbox.spec import Network, Tier

texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
spans = st.none() | st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=1))
numbers = st.none() | st.integers(1 << 24, 1 << 30)
commands = st.builds(
    CommandEngine,
    line=texts,
    prompt_delivery=st.none() | st.sampled_from(PromptDelivery),
    terminal=st.none() | st.booleans(),
)
models = st.builds(
    AnthropicEngine,
    max_tokens=st.none() | st.integers(1, 128_000),
    ask_before=st.lists(st.sampled_from(["bash", "view"]), max_size=2).map(tuple),
)


def layers(engines: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        AgentSettings,
        engine=engines,
        system_prompt=texts,
        model=st.none() | st.from_regex(r"[a-z0-9.-]{0,10}", fullmatch=True),
        environment=st.dictionaries(st.sampled_from("ABC"), st.text("a=\n é", max_size=5), max_size=4),
        timeout=spans,
        idle_timeout=spans,
        sandbox_tier=st.none() | st.sampled_from(Tier),
        network=st.none() | st.sampled_from(Network),
        max_turns=st.none() | st.integers(1, 10_000),
        token_budget=numbers,
        memory_bytes=numbers,
        disk_bytes=numbers,
        allowed_hosts=st.lists(st.sampled_from(["example.com", "*:22"]), max_size=2).map(tuple),
        image=st.none() | st.from_regex(r"[a-z0-9.:/-]{0,10}", fullmatch=True),
    )


def test_what_is_set_wins_and_what_is_not_inherits() -> None:
    template = AgentSettings(
        engine=CommandEngine(line="one", terminal=True), timeout=timedelta(seconds=5), environment={"A": "1", "B": "1"}
    )
    worker = AgentSettings(engine=CommandEngine(line="two"), environment={"B": "2", "C": "2"})
    assert overlay(overlay(DEFAULTS, template), worker) == AgentSettings(
        engine=CommandEngine(line="two", terminal=True),
        timeout=timedelta(seconds=5),
        environment={"A": "1", "B": "2", "C": "2"},
        sandbox_tier=Tier.BUBBLEWRAP,
        network=Network.NONE,
    )


def test_another_engine_replaces_all_settings_of_the_one_below() -> None:
    template = AgentSettings(engine=AnthropicEngine(max_tokens=5, ask_before=("bash",)), model="m")
    assert overlay(template, AgentSettings(engine=AnthropicEngine(max_tokens=6))).engine == AnthropicEngine(
        max_tokens=6, ask_before=("bash",)
    )
    changed = overlay(template, AgentSettings(engine=CommandEngine(line="x")))
    assert changed == AgentSettings(engine=CommandEngine(line="x"), model="m"), "a model means something to each"
    back = overlay(changed, AgentSettings(engine=AnthropicEngine()))
    assert back.engine == AnthropicEngine(), "nothing is left from before"


@given(*[layers(st.none() | commands)] * 3)
def test_layers_of_one_engine_may_be_merged_in_any_grouping(
    one: AgentSettings, two: AgentSettings, three: AgentSettings
) -> None:
    assert overlay(overlay(one, two), three) == overlay(one, overlay(two, three))
    assert overlay(one, AgentSettings()) == one
    assert overlay(AgentSettings(), one) == one


@given(layers(st.none() | commands | models))
def test_nothing_is_lost_on_the_wire_or_in_a_database(agent: AgentSettings) -> None:
    message = pb.AgentSettings.FromString(AGENT.to_proto(agent).SerializeToString())
    assert AGENT.from_proto(message) == agent
    assert Rules(CHECKS).violations(message) == []
    stored: TypeAdapter[AgentSettings] = TypeAdapter(StoredAgentSettings)
    assert stored.validate_python(stored.dump_python(agent, mode="json", exclude_none=True)) == agent
    assert stored.validate_json(stored.dump_json(agent)) == agent


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (
            pb.AgentSettings(command=pb.CommandEngine(line="x" * 65537), system_prompt="\0"),
            "command.line system_prompt",
        ),
        (pb.AgentSettings(command=pb.CommandEngine(prompt_delivery=99)), "command.prompt_delivery"),
        (pb.AgentSettings(anthropic=pb.AnthropicEngine(max_tokens=0)), "anthropic.max_tokens"),
        (pb.AgentSettings(anthropic=pb.AnthropicEngine(ask_before=["a b"])), "anthropic.ask_before[0]"),
        (pb.AgentSettings(max_turns=0, token_budget=0, memory_bytes=1), "max_turns token_budget memory_bytes"),
        (pb.AgentSettings(timeout=Duration()), "timeout"),
        (pb.AgentSettings(timeout=Duration(nanos=999)), "timeout"),
        (pb.AgentSettings(timeout=Duration(seconds=7 * 86400, nanos=1000)), "timeout"),
        (pb.AgentSettings(idle_timeout=Duration(seconds=-(2**63))), "idle_timeout"),
        (pb.AgentSettings(sandbox_tier=99, network=99), "sandbox_tier network"),
        (pb.AgentSettings(environment={"1A": ""}), 'environment["1A"]'),
        (pb.AgentSettings(environment={f"A{n}": "" for n in range(129)}), "environment"),
        (pb.AgentSettings(environment={"A": "x" * 65536}), "environment"),
        (pb.AgentSettings(environment={"A": "\0"}), 'environment["A"]'),
        (pb.AgentSettings(allowed_hosts=["example.com", "a b"]), "allowed_hosts[1]"),
    ],
)
def test_all_that_is_wrong_is_named(message: pb.AgentSettings, fields: str) -> None:
    found = Rules(CHECKS).violations(message)
    assert {field for field, _ in found} == set(fields.split())


def test_what_a_command_lacks_shows_only_when_all_is_merged() -> None:
    assert [field for field, _ in CommandEngine().violations()] == ["line"]
    on_a_terminal = CommandEngine(line="x", terminal=True)
    assert (list(on_a_terminal.violations()), on_a_terminal.prompt_is_argument) == ([], True)
    by_stdin = CommandEngine(line="x", terminal=True, prompt_delivery=PromptDelivery.STDIN)
    assert [field for field, _ in by_stdin.violations()] == ["terminal"]


def test_a_variable_whose_name_says_secret_is_one() -> None:
    environment = {"API_TOKEN": "abcdefgh", "DB_PASSWORD": "short", "MAX_TOKENS": "4096000", "OWN": "plain value"}
    agent = with_secrets_apart(AgentSettings(environment=environment, secrets={"OWN": "a secret value"}))

    assert agent.secrets == {"API_TOKEN": "abcdefgh", "OWN": "a secret value"}
    assert agent.environment == {"DB_PASSWORD": "short", "MAX_TOKENS": "4096000"}


LINE, PRESET = CommandEngine(line="make", prompt_delivery=PromptDelivery.ARGUMENT), CommandEngine(preset="claude")


@pytest.mark.parametrize(
    ("below", "above", "merged"),
    [
        (LINE, PRESET, PRESET),
        (PRESET, LINE, LINE),
        (PRESET, CommandEngine(preset="codex"), CommandEngine(preset="codex")),
        (CommandEngine(terminal=True, line="x"), PRESET, PRESET),
        (LINE, CommandEngine(), LINE),
        (PRESET, CommandEngine(), PRESET),
        (PRESET, CommandEngine(line=""), CommandEngine(line="")),
        (LINE, CommandEngine(preset=""), replace(LINE, preset="")),
    ],
)
def test_a_preset_and_a_line_take_each_others_place(
    below: CommandEngine, above: CommandEngine, merged: CommandEngine
) -> None:
    assert overlay(AgentSettings(engine=below), AgentSettings(engine=above)).engine == merged


def test_a_preset_is_a_whole_command() -> None:
    assert not list(PRESET.violations())
    both = replace(PRESET, line="make", terminal=True, prompt_delivery=PromptDelivery.STDIN)
    assert {field for field, _ in both.violations()} == {"line", "terminal", "prompt_delivery"}
    assert "or a preset" in dict(CommandEngine(preset="").violations())["line"]


def test_a_tool_that_no_model_has_is_refused_by_whoever_merges_the_settings() -> None:
    assert toolbox.TOOLS == MODEL_TOOLS
    assert not list(AnthropicEngine(ask_before=MODEL_TOOLS).violations())
    ((field, rule),) = AnthropicEngine(ask_before=("bash", "bsh")).violations()
    assert field == "ask_before"
    assert "'bsh'" in rule
