"""The driver's ledger by RPC: the methods of the lifecycle's `Ledger`, for a driver of our own on another machine."""
