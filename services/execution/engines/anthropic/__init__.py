"""Engine `anthropic`: a model is the agent, driven by a loop of ours, and its tools run in the sandbox.

The loop and the key are in the runner, and every tool call goes to one process inside the sandbox. The conversation is
written down before it goes on, so a new runner goes on where a lost one was. Only this room talks to a model.
"""
