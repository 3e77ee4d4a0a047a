"""TLS for HTTP by the gateway's own certificate, which is followed when it is renewed, as gRPC's server does."""

import ssl
from typing import Any

from services.common.errors import StartError
from services.common.rpc.tls import Followed, ServerTls, check_pair


def context_of(tls: ServerTls) -> ssl.SSLContext:
    """Return the context to serve with. Raises StartError where the files are not there or do not fit.

    At each new connection it is asked whether they have changed; until the new ones fit, the old ones serve on.
    """
    files = Followed(tls, lambda: _read(tls))
    first = files.now

    def follow(connection: ssl.SSLObject | ssl.SSLSocket, *_: Any) -> None:  # noqa: ANN401 - OpenSSL's callback
        files.look()
        connection.context = files.now

    first.sni_callback = follow
    return first


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
