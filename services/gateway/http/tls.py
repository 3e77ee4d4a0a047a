"""TLS for HTTP by the gateway's own certificate, which is followed when it is renewed, as gRPC's server does."""

import ssl
from pathlib import Path
from typing import Any

import structlog

from services.common.errors import StartError
from services.common.rpc.tls import ServerTls, check_pair

log = structlog.get_logger()


def context_of(tls: ServerTls) -> ssl.SSLContext:
    """Return the context to serve with. Raises StartError where the files are not there or do not fit.

    At each new connection it is asked whether they have changed; until the new ones fit, the old ones serve on.
    """
    serving, known = _read(tls), _stamp(tls)

    def follow(connection: ssl.SSLObject | ssl.SSLSocket, *_: Any) -> None:  # noqa: ANN401 - OpenSSL's callback
        nonlocal serving, known
        try:
            stamp = _stamp(tls)
            if stamp != known:
                serving, known = _read(tls), stamp
        except (OSError, StartError) as error:
            log.warning("the old certificate serves on: the new one cannot be used", error=str(error))
        connection.context = serving

    serving.sni_callback = follow
    return serving


def _read(tls: ServerTls) -> ssl.SSLContext:
    check_pair(tls.certificate, tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"cannot read the clients' CA in {tls.client_ca}: {error}") from None
    return context


def _stamp(tls: ServerTls) -> tuple[tuple[int, int, int], ...]:
    return tuple(map(_state, (path for path in (tls.certificate, tls.key, tls.client_ca) if path is not None)))


def _state(path: Path) -> tuple[int, int, int]:
    file = path.stat()
    return file.st_mtime_ns, file.st_ino, file.st_size
