"""The driver's seam by RPC: what a ledger does for a driver of our own that runs on another machine."""
