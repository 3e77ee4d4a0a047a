"""The providers that an agent has on a machine: those that are known, and the machine's own."""

import pytest

from services.agent.providers import EVERYWHERE, ModelProvider, ModelWire, keys_by_name, with_own
from services.lifecycle.settings import DriverSettings

VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GEMINI_API_KEY")


def providers(names: str, kind: str) -> list[ModelProvider]:
    """Return providers of one-letter names, whose URLs tell their kinds apart."""
    return [ModelProvider(name=name, wire=ModelWire.CHAT, base_url=f"https://{kind}") for name in names]


@pytest.mark.parametrize(
    ("known", "own", "names", "expected"),
    [
        ("", "", "", ""),
        ("ba", "", "", "b:known a:known"),
        ("b", "ac", "", "b:known a:own c:own"),
        ("ba", "ac", "", "b:known a:known c:own"),
        ("", "ac", "c", "c:own"),
        ("b", "ac", "cb", "c:own b:known"),
        ("b", "a", "xb", "b:known"),
    ],
)
def test_what_is_known_comes_first_and_hides_a_machines_own(known: str, own: str, names: str, expected: str) -> None:
    found = with_own(providers(known, "known"), providers(own, "own"), tuple(names))
    assert " ".join(f"{each.name}:{each.base_url.removeprefix('https://')}" for each in found) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({"ANTHROPIC_API_KEY": ""}, []),
        ({"ANTHROPIC_API_KEY": "sk-a"}, [("anthropic", "MESSAGES", "https://api.anthropic.com")]),
        (
            {"ANTHROPIC_API_KEY": "sk-a", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"},
            [("anthropic", "MESSAGES", "http://127.0.0.1:9")],
        ),
        (
            {"OPENAI_API_KEY": "sk-o"},
            [
                ("openai", "RESPONSES", "https://api.openai.com/v1"),
                ("openai-chat", "CHAT", "https://api.openai.com/v1"),
            ],
        ),
        ({"GEMINI_API_KEY": "g"}, [("gemini", "GEMINI", "https://generativelanguage.googleapis.com")]),
    ],
)
def test_a_companys_key_in_the_environment_makes_a_provider(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    own = DriverSettings().own_providers
    assert [(each.name, each.wire, each.base_url) for each in own] == expected
    assert {each.allowed_addresses for each in own} <= {EVERYWHERE}, "where they are is the operator's own word"
    assert "sk-" not in repr(own)


def test_each_key_has_a_name_of_its_own() -> None:
    provider = ModelProvider(name="a", wire=ModelWire.CHAT, base_url="https://a", keys=("one", "two"))
    assert keys_by_name([provider]) == {"a": "one", "a-2": "two"}
