"""The gateway's plain values: jobs, what they refer to, cells, questions, hooks, events, and callers.

Every other package may use them. They know neither SQL nor messages, and nothing here depends on state, except
`current_principal`, which returns the caller of the RPC that is being served.
"""
