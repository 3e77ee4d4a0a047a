"""Whom git believes about the certificates of servers: what the machine trusts, and a private CA besides."""

import os
import ssl
from pathlib import Path
from typing import Final

from services.common.errors import StartError
from services.common.files import write_whole
from services.git.gitcmd.certificates import bundle

# What a variable names takes the place of what the machine trusts. The second is OpenSSL's: not every git knows it.
_VARIABLES: Final = ("GIT_SSL_CAINFO", "SSL_CERT_FILE")


def certificates_file(ca: Path | None, directory: Path) -> str:
    """Return the file of all certificates that git is to believe; empty means that git knows by itself.

    With a `ca` of the settings it is a new file in the directory, which holds the machine's certificates too.
    Raises StartError when `ca` holds no certificate, or cannot be read.
    """
    named = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    if ca is None:
        return named
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
        own = ca.read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"BOATYARD_GIT_CA: {ca} has no certificates that can be read: {error}") from error
    together = directory / "certificates.pem"
    write_whole(together, bundle(own, named))
    return str(together)
