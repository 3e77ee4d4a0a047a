"""Which URLs may be written down, and that no refusal repeats a secret."""

import pytest

from services.gateway.catalog.remotes import url_complaint


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
    ],
)
def test_a_refusal_says_why_and_repeats_nothing(url, expected):
    complaint = url_complaint(url)
    assert complaint is not None
    assert expected in complaint
    assert "hunter2" not in complaint
