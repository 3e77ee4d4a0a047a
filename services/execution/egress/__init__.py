"""The only way out of a sandbox that has a network: a proxy and a name server that run outside the sandbox.

The sandbox has no interface but its own loopback. A child of the runner makes sockets that listen *inside*: it forks a
process that enters the sandbox's network namespace and hands the sockets out, so that none of our code serves inside.
The namespace brings every TCP connection to them, so programs need not know of a proxy; nothing else has a way out.
The child then decides about every name and every connection, and reports to the runner, which writes each decision into
the events. It dies with the runner. Standard library only.
"""

PROXY_PORT = 3128
"""The port of the proxy, on 127.0.0.1 inside the sandbox."""

_PROXY = f"http://127.0.0.1:{PROXY_PORT}".encode()
_NO_PROXY = b"localhost,127.0.0.1,::1"

ENVIRONMENT: dict[str, bytes] = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _PROXY),
    "no_proxy": _NO_PROXY,
    "NO_PROXY": _NO_PROXY,
    "NODE_USE_ENV_PROXY": b"1",  # without it, node's own fetch ignores all of them (Node 24 and newer)
}
"""The variables that tell programs inside about the proxy."""
