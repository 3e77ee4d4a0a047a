"""Engine `command`: the agent is a program, which runs in the sandbox from its start to its end.

It is asked to end politely and then ended for certain, its output is all that it says, and where it wants a terminal it
gets one. It begins once: when its runner is lost, so is it.
"""
