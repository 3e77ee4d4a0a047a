"""The driver's ledger by RPC: each method of the lifecycle's `Ledger`, for a driver of our own on another machine."""
