"""Readers of what agents write on their standard output: a module for each form, with a class `Reader`.

A reader gets one line after another as a JSON object, says by `AgentEvents` what the agent says and does, and knows in
the end whether the work was done. What it does not know it leaves out: the lines themselves are kept as they are.
"""
