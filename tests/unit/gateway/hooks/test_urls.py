"""The URLs of hooks: their form, which the contract has, and their hosts, in one answer."""

import pytest
from boatyard.gateway.v1 import hook_pb2 as pb

from services.common.rpc.rules import Rules
from services.gateway.hooks.wire import checks
from services.lifecycle.webhooks import AllowList

RULES = Rules(checks(AllowList()))


def complaints(**action: dict[str, str]) -> list[tuple[str, str]]:
    return [*RULES.violations(pb.CreateHookRequest(hook=pb.Hook(event=pb.Hook.EVENT_POST, **action)))]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://example.com",
            "https://example.com/hook?x=1",
            "https://example.com:8443/",
            "https://example.com?x=@",
        ),
        *("https://93.184.216.34/", "https://[2606:4700::1111]/", "https://example.com/" + "x" * 2028),
    ],
)
def test_a_webhook_has_any_page(url: str) -> None:
    assert complaints(webhook={"url": url}) == []


@pytest.mark.parametrize("url", ["https://example.com", "https://example.com:8443/", "https://[2606:4700::1111]:80"])
def test_a_callback_is_a_server(url: str) -> None:
    assert complaints(callback={"url": url}) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is required"),
        ("ftp://example.com/", "must be https://host"),
        ("example.com", "must be https://host"),
        ("https://", "must be https://host"),
        ("https://exa mple.com/", "without spaces"),
        ("https://example.com/\n", "without spaces"),
        ("https://ex\u00e4mple.com/", "printable ASCII"),
        ("https://me:secret@example.com/", "user name"),
        ("https://example.com/#part", "must be https://host"),
        ("https://example.com/" + "x" * 2029, "at most 2 KiB"),
        ("https://example.com:port/", "not a URL"),
        ("http://example.com/", "must be https"),
        ("https://127.0.0.1/", "not public"),
    ],
)
def test_what_is_refused_is_said_once(url: str, words: str) -> None:
    for action in ("webhook", "callback"):
        ((field, text),) = complaints(**{action: {"url": url}})
        assert field == f"hook.{action}.url"
        assert words in text
        assert "secret" not in text


@pytest.mark.parametrize("url", ["https://example.com/path", "https://example.com/?x", "https://example.com?x"])
def test_a_callback_has_no_path(url: str) -> None:
    ((field, text),) = complaints(callback={"url": url})
    assert (field, "and path" in text) == ("hook.callback.url", True)
