"""The service's own part: the records of executions, and for each active one a task that follows it to its end.

It decides whether an execution may start, hands it to a runner, finds it again after a restart, writes the result that
a killed runner could not, serves its events, messages and terminal, and removes old logs. It knows no messages of the
wire.
"""
