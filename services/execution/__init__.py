"""The execution service owns agent processes: it starts them in a sandbox, records what they do, and ends them.

It promises that an agent does not notice when the service dies, that no byte of what an agent writes is lost or
reported twice, and that nothing of an execution is left running when it has ended. It knows no git and no jobs.
"""
