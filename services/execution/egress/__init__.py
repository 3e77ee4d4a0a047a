"""The one way out of a sandbox whose network is an allow list: a proxy and a name server of ours, outside of it.

The sandbox has no interface but its own loopback. A child of the runner makes sockets that listen *in there*: it forks
into the sandbox's network namespace for that, and takes them out again, so that none of our code runs inside. It then
decides about every name and every connection, and tells the runner, who writes each decision into the events. It dies
with the runner. Standard library only.
"""

PROXY_PORT = 3128
"""Where the proxy listens, on 127.0.0.1 inside."""

_PROXY = f"http://127.0.0.1:{PROXY_PORT}".encode()
_NO_PROXY = b"localhost,127.0.0.1,::1"

ENVIRONMENT: dict[str, bytes] = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _PROXY),
    "no_proxy": _NO_PROXY,
    "NO_PROXY": _NO_PROXY,
    "NODE_USE_ENV_PROXY": b"1",  # else node's own fetch looks at none of them (Node 24 and newer)
}
"""How programs inside learn of the proxy."""
