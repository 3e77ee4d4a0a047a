"""The execution service owns agent processes: it starts them in a sandbox, records what they do, and ends them.

It promises that an agent does not notice when the service dies, that of what an agent writes no byte is lost or told
twice, and that when an execution has ended nothing of it is left running. It knows no git and no jobs.
"""
