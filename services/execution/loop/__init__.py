"""The `anthropic` engine: a model is asked, what it calls for is done in the sandbox, and it is asked again.

It runs in the runner, in the place of `runner.command`, and keeps the same promises. What the model said is in the
run's history before it is acted on, so a new runner goes on where a lost one was. The key is in this process's memory
alone. `access` and `models` are the service's as well, and like `tally` need the standard library only.
"""
