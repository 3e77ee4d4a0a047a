"""The values that must not be recorded, in all forms in which programs commonly print them."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 6
"""The minimum length of a secret, in bytes: a shorter one occurs in too much innocent text, and is easily guessed."""

_MAX_VALUE_BYTES = 4096
_MIN_FORM_BYTES = 8


def needles(secrets: Mapping[str, bytes]) -> dict[bytes, str]:
    """Return all values to look for, with the name of the secret that each one reveals."""
    names: dict[bytes, str] = {}
    for name, value in secrets.items():
        # A program that prints a variable seldom prints the line break at its end.
        bare = value.strip() if len(value.strip()) >= SHORTEST else value
        for form in (bare, *_forms(bare)) if bare else ():
            names.setdefault(form, name)
    return names


def _forms(value: bytes) -> Iterator[bytes]:
    if b"\n" in value:
        yield value.replace(b"\n", b"\r\n")  # as a terminal shows it
    if len(value) > _MAX_VALUE_BYTES:
        return
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for form in (quote(value, safe="").encode(), quote(value).encode(), quote_plus(value).encode()):
        if form != value:
            yield form
            yield re.sub(rb"%[0-9A-F]{2}", lambda escape: escape[0].lower(), form)
    text = value.decode("utf-8", "replace")
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "replace")
        if escaped != value:
            yield escaped
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + value).rstrip(b"=")
        # The first and the last character may also contain bits of what precedes and follows.
        inner = whole[(0, 2, 3)[shift] : len(whole) - bool((len(value) + shift) % 3)]
        if len(inner) >= _MIN_FORM_BYTES:
            yield inner
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))
