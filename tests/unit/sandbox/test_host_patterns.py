import pytest

from services.sandbox.host_patterns import HostPattern, normalized_host


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("example.com", ["example.com"], ["a.example.com", "example.com.test", "notexample.com", ""]),
        ("Example.COM.", ["example.com"], ["example.org"]),
        ("*.example.com", ["a.example.com", "a.b.example.com"], ["example.com", "aexample.com", "example.com.test"]),
        ("*", ["example.com", "192.0.2.1", "::1"], []),
        ("192.0.2.1", ["192.0.2.1"], ["192.0.2.10", "1.192.0.2.1"]),
        ("[2001:DB8::1]:443", ["2001:db8::1"], ["2001:db8::2"]),
    ],
)
def test_a_pattern_names_what_it_says_and_nothing_else(pattern: str, yes: list[str], no: list[str]) -> None:
    parsed = HostPattern.parse(pattern)
    assert [host for host in yes if not parsed.names(normalized_host(host))] == []
    assert [host for host in no if parsed.names(normalized_host(host))] == []


def test_without_a_port_it_is_about_the_web() -> None:
    assert HostPattern.parse("example.com").ports == {80, 443}
    assert HostPattern.parse("*.example.com:22").ports == {22}


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b", "*.*.com", "a.*.com", "https://example.com", "example.com:0", "example.com:70000"),
        *(
            "example.com/x",
            "a..b",
            "[::1",
            "[nothing]:1",
            "::1",
            "*example.com",
            ".example.com",
            "a" * 300,
            "é.example",
        ),
    ],
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        HostPattern.parse(text)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*", "*.example.com", True),
        ("*", "[2001:db8::1]", True),
        ("*", "*", True),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "*.a.example.com", True),
        ("*.example.com", "a.b.example.com:443", True),
        ("example.com", "example.com:80", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "*", False),
        ("*.example.com", "*.xexample.com", False),
        ("*.a.example.com", "*.example.com", False),
        ("example.com", "*.example.com", False),
        ("example.com:443", "example.com", False),
        ("*", "example.com:22", False),
    ],
)
def test_a_pattern_covers_another_whose_hosts_it_all_matches(wide: str, narrow: str, covers: bool) -> None:
    assert HostPattern.parse(wide).covers(HostPattern.parse(narrow)) is covers
