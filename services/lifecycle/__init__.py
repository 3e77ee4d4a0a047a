"""The life of a job, as a library: what is done for it, in which order, and what is written down before going on.

Whoever runs a `driver` on a `ledger` gets this promise: of any job that was claimed, every step is done at least once,
the agent is started exactly once per round of an attempt, and whoever has lost the job's lease writes nothing more.
The node services are reached by stubs (`nodes`); where jobs are recorded is up to the ledger, and no SQL is here.
"""
