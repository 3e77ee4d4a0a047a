"""What a remote lets us in by: for https a token, for ssh a private key. One field holds either; the URL says which.

Over https it shows who it is by a certificate, for which a CA of its own may vouch.
"""

import re
import ssl
from typing import Final

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_KEY: Final = re.compile(
    r"\s*-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[\x20-\x7e\r\n]+\n-----END [A-Z ]*PRIVATE KEY-----\s*"
)


def credential_complaint(credential: str, scheme: str) -> str | None:
    """Return why a credential is none for a remote of this scheme: `https`, `http`, `ssh` or `file`; None if it is."""
    if not credential:
        return None
    if scheme == "ssh":
        if not _KEY.fullmatch(credential):
            return "must be a private key for ssh, from its line `-----BEGIN …` to its line `-----END …`"
        return "must be a private key without a passphrase" if "ENCRYPTED" in credential else None
    if scheme not in {"https", "http"}:
        return "is for https and ssh only"
    return (
        None if _TOKEN.fullmatch(credential) else "must be printable ASCII characters, without spaces: it is for https"
    )


def ca_complaint(ca: str, scheme: str) -> str | None:
    """Return why a text is no certificates for a remote of this scheme; None if it is, or is empty."""
    if not ca:
        return None
    if scheme != "https":
        return "is for https only"
    if "PRIVATE KEY-----" in ca:
        return "must hold certificates alone, and no private key"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca)
    except (TypeError, ValueError, ssl.SSLError):  # TypeError: it is not all ASCII
        return "must be certificates (PEM), from a line `-----BEGIN CERTIFICATE-----` on"
    return None
