"""gRPC as the house uses it: one way to serve, one way to call, one place where errors become statuses."""
