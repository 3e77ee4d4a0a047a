"""Well-known forms of tokens, as their issuers describe them, or as published tokens look if they do not.

A form is found by a prefix that hardly any other text has. A short prefix must also be at the beginning of a word.
Secrets without a form of their own (passwords, AWS secret access keys) are not found this way: they must be given as
secrets of the agent.
"""

import re
from dataclasses import dataclass

_WORD = "A-Za-z0-9_-"
_ALNUM = "A-Za-z0-9"
_BASE64 = "A-Za-z0-9+/="


@dataclass(frozen=True)
class Format:
    """One form: a token begins with one of `prefixes`; `accepts` matches a complete token."""

    name: str
    prefixes: tuple[str, ...]
    source: str
    accepts: re.Pattern[bytes]
    grows: re.Pattern[bytes]
    """Matches what may still become a token."""
    cap: int
    """The number of bytes within which that is decided."""
    begins_word: bool = False
    """True when a token must not follow a letter or a digit, because its prefix is short."""
    more: re.Pattern[bytes] | None = None
    """Matches what belongs to a token at the end of a piece, but arrives in the next piece."""


def _format(name: str, source: str, body: str, min_length: int, *prefixes: str, begins_word: bool = False) -> Format:
    """Return a form with at least `min_length` characters of the class `body` after its prefix."""
    start = "(?:" + "|".join(re.escape(prefix) for prefix in prefixes) + ")"
    return Format(
        name,
        prefixes,
        source,
        accepts=re.compile(f"{start}[{body}]{{{min_length},}}".encode()),
        grows=re.compile(f"{start}[{body}]*".encode()),
        cap=max(map(len, prefixes)) + min_length,
        begins_word=begins_word,
        more=re.compile(f"[{body}]*".encode()),
    )


_GITLAB = ("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glft-", "glsoat-", "glimt-", "glagent-", "gloas-")

_JWT = Format(
    "jwt",
    ("eyJ",),
    "RFC 7519, section 3.1: two objects of JSON in base64url, and a signature",
    begins_word=True,
    cap=9000,
    accepts=re.compile(rb"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,6000}\.[\w-]{16,}", re.ASCII),
    grows=re.compile(rb"eyJ[\w.-]*", re.ASCII),
    more=re.compile(rb"[\w-]*", re.ASCII),
)
_BREAK = r"(?:\\[rn]|\s){0,8}"
_PEM = Format(
    "private-key",
    ("-----BEGIN ",),
    "RFC 7468; with line breaks as they are, or as JSON writes them",
    cap=20_000,
    accepts=re.compile(
        rf"-----BEGIN [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----(?:{_BREAK}[A-Za-z0-9+/=]{{16,}})+"
        rf"(?:{_BREAK}[A-Za-z0-9+/=]{{0,15}}{_BREAK}-----END [A-Z0-9 ]{{0,40}}-----)?".encode()
    ),
    grows=re.compile(
        rb"-----BEGIN (?:[A-Z0-9 ]{0,60}-{0,4}\Z|[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rb"[A-Za-z0-9+/=\s\\]*(?:-----E[A-Z0-9 ]*-{0,5}|-{0,5}))"
    ),
)

FORMATS = (
    _format("anthropic", "platform.claude.com/docs, API overview: keys begin so", _WORD, 24, "sk-ant-"),
    _format("openai", "platform.openai.com/docs, API keys", _WORD, 40, "sk-proj-", "sk-svcacct-", "sk-admin-"),
    _format("openai", "keys without a project, until 2024", _ALNUM, 40, "sk-", begins_word=True),
    _format(
        "github",
        "docs.github.com, About authentication to GitHub: token prefixes",
        _ALNUM,
        36,
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    ),
    _format("github", "the same page: fine-grained tokens", "A-Za-z0-9_", 60, "github_pat_"),
    _format("gitlab", "docs.gitlab.com, Token overview: token prefixes", "A-Za-z0-9_.-", 20, *_GITLAB),
    _format(
        "aws",
        "docs.aws.amazon.com, IAM identifiers: unique ID prefixes",
        "A-Z0-9",
        16,
        *("AKIA", "ASIA"),
        begins_word=True,
    ),
    _format(
        "slack",
        "docs.slack.dev, Tokens: token types",
        "A-Za-z0-9-",
        20,
        *("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xapp-"),
    ),
    _format("slack", "docs.slack.dev, Incoming webhooks", "A-Za-z0-9/", 30, "hooks.slack.com/services/"),
    _format("google", "cloud.google.com/docs, API keys", _WORD, 35, "AIza"),
    _format("google", "developers.google.com/identity, OAuth 2.0: client secrets", _WORD, 28, "GOCSPX-"),
    _format("npm", "npm docs, About access tokens", _ALNUM, 36, "npm_"),
    _format("pypi", "PyPI help, API tokens: macaroons that begin so", _WORD, 40, "pypi-AgEIcHlwaS5vcmc"),
    _format("stripe", "docs.stripe.com, API keys: live secret and restricted keys", _ALNUM, 24, "sk_live_", "rk_live_"),
    _format("huggingface", "huggingface.co/docs, User access tokens", _ALNUM, 34, "hf_", begins_word=True),
    _format("docker", "docs.docker.com, Personal access tokens", _WORD, 24, "dckr_pat_"),
    _format("boatyard", "ours: tokens of `boatyard token create`, and new cells' own", _WORD, 43, "boatyard_"),
    _format("webhook", "standardwebhooks.com: signing secrets, which hooks of ours have too", _BASE64, 32, "whsec_"),
    _JWT,
    _PEM,
)
"""All forms. Two with the same prefix are distinguished by what follows."""
