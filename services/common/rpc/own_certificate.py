"""The certificate that a cell makes for itself, by which callers of its ports know that they reach it.

Nobody signs it but itself. The cell's own programs read it in the data directory; others pin it, after comparing its
fingerprint once (`boatyard login`).
"""

import fcntl
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.common.files import write_whole
from services.common.home import Home
from services.common.rpc.tls import PINNED_NAME, ClientTls, ServerTls, fingerprint

_DAYS: Final = 3650  # its end makes every caller pin another one, so it is as long as the longest-lived cell


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The PEM files of a cell's own certificate and its key."""

    certificate: Path
    key: Path

    @property
    def server_tls(self) -> ServerTls:
        """The TLS to serve with."""
        return ServerTls(self.certificate, self.key)

    @property
    def client_tls(self) -> ClientTls:
        """The TLS to call those with who serve with it."""
        return ClientTls(self.certificate, server_name=PINNED_NAME)

    @property
    def fingerprint(self) -> str:
        """The certificate's SHA-256 fingerprint, as openssl writes it."""
        return fingerprint(self.certificate.read_text())


def own_certificate(home: Home) -> OwnCertificate:
    """Return the cell's own certificate, made at first use, in `tls` of the data directory.

    Whoever deletes the files gets another one at the next start.
    """
    directory = home.directory("tls")
    own = OwnCertificate(directory / "cell.crt", directory / "cell.key")
    with (directory / "lock").open("a") as lock:  # several services may be the first
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (own.certificate.exists() and own.key.exists()):
            certificate, key = _make()
            write_whole(own.key, key)
            write_whole(own.certificate, certificate)
    return own


def _make() -> tuple[bytes, bytes]:
    """Make a key and its certificate, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Boatyard")])
    now = datetime.now(UTC)
    names = [
        x509.DNSName(PINNED_NAME),
        *_host_names(),
        *(x509.IPAddress(ip_address(one)) for one in ("127.0.0.1", "::1")),
    ]
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for callers whose clock is behind
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _host_names() -> list[x509.DNSName]:
    """Return the names of this machine that a certificate can have."""
    names = []
    for name in {socket.gethostname(), socket.getfqdn()} - {PINNED_NAME}:
        with suppress(ValueError):  # not ASCII
            names.append(x509.DNSName(name))
    return names
