"""Where the machine's certificates are, and those with others besides: what git is told takes their place."""

from pathlib import Path
from typing import Final

_OF_MACHINES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def bundle(own: bytes, named: str = "") -> bytes:
    """Return certificates together with those of the file that is named, or else the machine's; nothing for none.

    Raises OSError when the file cannot be read.
    """
    if not own:
        return b""
    machine = Path(named) if named else next((path for path in map(Path, _OF_MACHINES) if path.is_file()), None)
    return (machine.read_bytes() + b"\n" if machine else b"") + own
