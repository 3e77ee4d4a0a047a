"""The inbox: what reaches an execution from outside while it runs, through files and pipes in its run directory.

`messages` has messages for the agent, its questions and their answers, each of them durable before anybody hears of it;
`terminal_input` has what is typed on its terminal. Both ends are here, the service's and the runner's. Standard library
only.
"""
