"""What reaches an execution from outside while it runs, through files and pipes in its run directory.

`messages` are messages for the agent, the questions that it asks, and their answers, each durable before anybody is
told of it; `terminal_input` is what somebody types on its terminal. Both ends are here, the service's and the runner's.
Standard library only.
"""
