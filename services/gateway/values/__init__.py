"""What the gateway speaks of: jobs, what they refer to, cells, questions, hooks, events, and who calls.

Plain values, which every other package may use. They know neither SQL nor messages, and nothing in here asks anybody
anything, but for `current_principal`, which says who makes the call that is being served.
"""
