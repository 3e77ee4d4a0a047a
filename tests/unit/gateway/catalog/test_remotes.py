"""Which URLs may be written down, and that no refusal repeats a secret."""

import pytest

from services.gateway.catalog.remotes import normal_form, url_complaint


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
        ("https://a..example/hunter2", "host"),
        (f"https://{'a' * 64}.example/hunter2", "host"),
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


SAME = [
    [
        "https://Example.com/group/Project.git",
        "https://example.com:443/group/Project/",
        "https://example.com/group//Project",
    ],
    ["ssh://git@example.com:22/a/b.git", "git@example.com:a/b", "git@EXAMPLE.com:/a/b/"],
    ["ssh://example.com:22/a/b.git", "example.com:/a/b", "ssh://EXAMPLE.com/a/b/"],
    ["example.com:a/b.git", "EXAMPLE.com:a/b/"],
    ["ssh://ann@example.com/b", "ann@example.com:/b.git"],
    ["ann@example.com:b", "ann@EXAMPLE.com:b.git/"],
    ["http://localhost:80/p", "http://LOCALHOST/p.git"],
    ["https://[2001:DB8::1]/p", "https://[2001:db8::1]:443/p.git"],
    ["/srv/git/p", "file:///srv/git/p/", "/srv//git/p", "/srv/git/p/.git"],
]
OTHERS = ["https://example.com/group/project", "https://example.com:8443/group/Project", "/srv/git/p.git", "/srv/git/P"]
OTHERS += ["ssh://example.com:2222/a/b", "https://example.com/a/b", "bob@example.com:b", "http://localhost:3000/p"]


def test_one_repository_has_one_url_however_it_is_written():
    forms = [{normal_form(url) for url in same} for same in SAME]
    assert [len(each) for each in forms] == [1] * len(SAME)
    assert len(set.union(*forms)) == len(SAME)
    assert set.union(*forms).isdisjoint(map(normal_form, OTHERS))
    assert len(set(map(normal_form, OTHERS))) == len(OTHERS)


@pytest.mark.parametrize("text", ["", "/", "x", "https://[::1", "https://example.com:port/x", "::", "a\nb"])
def test_what_is_no_url_is_what_it_is(text):
    assert normal_form(text) in {text, "file:"}
