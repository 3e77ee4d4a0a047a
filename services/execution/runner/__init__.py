"""The program that stands between the service and a sandbox: `python -m services.execution.runner`.

It runs one execution and outlives the service, so it is small: the standard library, one thread, one loop. It lets the
execution's engine drive the agent, writes the event log, and writes the result when nothing of the agent is left. All
that it and the service know of each other goes through the run directory. If it is killed, the kernel ends the sandbox
too.
"""
