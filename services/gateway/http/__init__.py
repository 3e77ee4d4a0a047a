"""What the gateway serves over HTTP, besides its RPCs: its cell's metrics, for Prometheus, and its health."""
