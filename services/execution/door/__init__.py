"""The model's door: how an agent reaches its models without their keys, and without a network.

It listens on 127.0.0.1 inside the sandbox, and takes requests that carry the execution's token. To each it adds the
provider's key outside, sends it on as it is, and gives back the answer as it comes. What each request used is read from
a copy of the answer, and written to the events by the runner.

The door is a process of one execution, forked from its runner, so it needs no service, and has no keys but those of its
execution. It ends with its runner. When it is killed, the runner, which keeps the listening socket, makes it again.
Standard library only; keys are in memory and in pipes, never in a file, an argument or the environment.
"""

PORT = 3129
"""The door's port on 127.0.0.1 inside a sandbox."""
