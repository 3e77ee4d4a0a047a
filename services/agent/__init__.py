"""How an agent runs: its settings as values, what is known of each engine, and their messages.

`settings` is what templates, workers, jobs, executions and runs share. A new engine is a case of the contract's oneof
with its traits, a class in `settings`, and a module in `services.execution.engines`.
"""
