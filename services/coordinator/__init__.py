"""Runs jobs of a remote gateway on this machine's node services, through its API alone.

It has the driver of a gateway, on a ledger that is reached by RPC. It guarantees that a broken link, or a restart of
either side, costs no job: writes are repeated until they are answered, and what other cells have taken over is ended.
"""
