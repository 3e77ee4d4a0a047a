"""gRPC: one way to serve, one way to call, and one place where errors become statuses."""
