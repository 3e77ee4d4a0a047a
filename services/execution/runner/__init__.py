"""The program that stands between the service and a sandbox: `python -m services.execution.runner`.

It carries one execution and outlives the service, so it weighs little: the standard library, one thread, one loop. It
starts the agent, writes the event log, enforces the bounds, ends every process of the run, and writes the result. What
the two know of each other goes through the run directory (`rundir`). If it is killed, the kernel ends the sandbox too.
"""
