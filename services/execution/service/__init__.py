"""What the service keeps and does: the records of executions, and one task for each active one that stays to its end.

It decides whether an execution may start, hands it to a runner, finds it again after a restart, concludes what a killed
runner has left, serves its events, messages and terminal, and removes old logs. It knows no messages of the wire.
"""
