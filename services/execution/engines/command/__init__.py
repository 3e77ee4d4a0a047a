"""Engine `command`: the agent is a program, which runs in the sandbox from start to end.

The program is first asked to end and then killed, it reports nothing but its output, and it gets a terminal if it wants
one. It is started only once: when its runner is lost, the program is lost too.
"""

from services.execution.engines.command.engine import ENGINE

__all__ = ["ENGINE"]
