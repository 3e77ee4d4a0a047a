"""Which URLs may be written down, which tokens with them, and that no refusal repeats a secret."""

import pytest

from services.gateway.catalog.remotes import token_complaint, url_complaint


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/group/project.git",
        "https://example.com:8443/project",
        "https://[2001:db8::1]/project.git",
        "ssh://git@example.com:22/project.git",
        "ssh://example.com/project.git",
        "git@example.com:group/project.git",
        "example.com:project",
        "/srv/git/project.git",
        "file:///srv/git/project.git",
        "http://127.0.0.1:3000/project.git",
        "http://localhost/project.git",
    ],
)
def test_a_remote_that_git_can_reach_is_taken(url):
    assert url_complaint(url) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "required"),
        ("https://user:hunter2@example.com/p", "password"),
        ("https://hunter2@example.com/p", "password"),
        ("https://:hunter2@example.com/p", "password"),
        ("ssh://git:hunter2@example.com/p", "password"),
        ("git:hunter2@example.com:p", "password"),
        ("https://example.com/p?private_token=hunter2", "query"),
        ("https://example.com/p#hunter2", "fragment"),
        ("http://example.com/hunter2", "https, ssh"),
        ("git://example.com/hunter2", "https, ssh"),
        ("ext::sh -c hunter2", "spaces"),
        ("ext::hunter2", "https, ssh"),
        ("HTTPS://example.com/hunter2", "lower case"),
        ("https:///hunter2", "host"),
        ("https://-oProxyCommand=hunter2/p", "host"),
        ("ssh://-oProxyCommand=hunter2/p", "host"),
        ("ssh://-hunter2@example.com/p", "user name"),
        ("-oProxyCommand=hunter2:p", "user@host"),
        ("https://example.com:0/hunter2", "host"),
        ("https://example.com:99999/hunter2", "URL"),
        ("https://[::1/hunter2", "URL"),
        ("file://example.com/hunter2", "file:///"),
        ("file://", "file:///"),
        ("./hunter2", "https, ssh"),
        ("hunter2", "https, ssh"),
        ("https://example.com/\nhunter2", "control"),
        ("https://example.com/" + "hunter2" * 300, "2048"),
    ],
)
def test_a_refusal_says_why_and_repeats_nothing(url, expected):
    complaint = url_complaint(url)
    assert complaint is not None
    assert expected in complaint
    assert "hunter2" not in complaint


@pytest.mark.parametrize("token", ["", "ghp_0123456789abcdef"])
def test_a_token_goes_with_https(token):
    assert token_complaint("https://example.com/p", token) is None


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ssh://git@example.com/p", "hunter2"),
        ("git@example.com:p", "hunter2"),
        ("/srv/git/p", "hunter2"),
        ("https://example.com/p", "hunter2\nX-Header: x"),
        ("https://example.com/p", "hünter2"),
        ("https://example.com/p", "hunter2" * 1000),
    ],
)
def test_a_token_that_cannot_be_used_is_refused_without_being_repeated(url, token):
    complaint = token_complaint(url, token)
    assert complaint is not None
    assert "nter2" not in complaint
