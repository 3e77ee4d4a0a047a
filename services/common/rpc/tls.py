"""TLS with files: the certificates of servers and clients, and the CAs that they trust."""

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import grpc
import structlog

from services.common.errors import StartError

PINNED_NAME: Final = "localhost"
"""The name that each certificate has that a cell has made for itself, and by which callers check it who pin it."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files: a server's certificate with its chain, its key, and the CA of the clients that it accepts.

    Without a `client_ca` clients need no certificate. In either case their tokens identify them.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return gRPC's credentials, which follow the files. Raises StartError when files are missing or do not match.

        Each new connection checks whether the files have changed, which takes some microseconds. The old ones stay in
        use until the new ones match, which they do not between two renames.
        """
        files = Followed(self, self._read)

        def changed() -> Any:  # noqa: ANN401 - None for as they were, which gRPC's stub does not know
            return files.now if files.look() else None

        return grpc.dynamic_ssl_server_credentials(files.now, changed, self.client_ca is not None)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        check_pair(self.certificate, self.key)
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], _read(self.client_ca) if self.client_ca else None)

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return a value that differs after a file has changed. Raises OSError."""
        files = [path.stat() for path in (self.certificate, self.key, self.client_ca) if path is not None]
        return tuple((file.st_mtime_ns, file.st_ino, file.st_size) for file in files)


class Followed(Generic[T]):
    """A value made of a server's files, and made again when they change; kept until the new files match."""

    def __init__(self, tls: ServerTls, read: Callable[[], T]) -> None:
        """`read` makes it, and raises StartError or OSError when files are missing or do not match."""
        self._tls = tls
        self._read = read
        self.now = read()
        self._known = tls.stamp()

    def look(self) -> bool:
        """Check the files; return True when the value is a new one. Takes some microseconds."""
        try:
            stamp = self._tls.stamp()
            if stamp == self._known:
                return False
            self.now = self._read()
        except (OSError, StartError) as error:
            log.warning("cannot use the new certificate; the old one stays in use", error=str(error))
            return False
        self._known = stamp
        log.info("using a new certificate", file=str(self._tls.certificate))
        return True


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files: the CA that a client trusts, and its own certificate and key for servers that ask for one.

    `server_name` is the name in the server's certificate, when it differs from the one in its address.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @classmethod
    def of(
        cls, ca: str | Path | None, certificate: str | Path | None, key: str | Path | None, server_name: str
    ) -> "ClientTls | None":
        """Return the TLS of some settings, which may be empty; None without a CA."""
        if not ca:
            return None
        return cls(Path(ca), Path(certificate) if certificate else None, Path(key) if key else None, server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's credentials. Raises StartError when a file is missing or does not match."""
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(_read(self.ca))
        check_pair(self.certificate, self.key)
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Return the channel's options."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()


def fingerprint(certificate: str) -> str:
    """Return the SHA-256 fingerprint of a certificate in PEM, as openssl writes it, such as AB:CD:EF."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest().hex(":").upper()


def check_pair(certificate: Path, key: Path) -> None:
    """Raise StartError unless both files exist and match: gRPC reports neither at the start."""
    _read(certificate)
    _read(key)
    try:
        # With a password given OpenSSL does not prompt for one: a key that needs one is refused.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartError(
            f"the certificate in {certificate} and the key in {key} cannot be used together: {error}"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from None
