"""Engine `anthropic`: the agent is a model, driven by a loop in the runner, and its tools run in the sandbox.

The loop and the key stay in the runner, and every tool call goes to one process inside the sandbox. Each step of the
conversation is written down before the next, so a new runner continues where a lost one stopped. Only this package
talks to a model.
"""

from services.execution.engines.anthropic.engine import ENGINE

__all__ = ["ENGINE"]
