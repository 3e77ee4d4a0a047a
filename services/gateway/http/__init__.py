"""What the gateway serves over HTTP, beside its RPCs: its cell's metrics, for Prometheus, and whether it is well."""
