"""The tools of a model, as one long-lived program inside the sandbox: they see and may do what the sandbox allows.

Its requests and answers are lines of JSON on standard input and output (`serve`). This package alone is shown to the
sandbox, read-only, and runs there in isolated mode: it imports only itself and the standard library. It trusts nobody
and is trusted by nobody: its output is what a model asked to see.
"""

import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent
"""The directory that the sandbox must show, at the same path."""

# Inside, the packages above this one are empty directories, which Python accepts as namespace packages. Neither the
# agent's environment nor its files influence what is imported.
_START = (
    f"import sys; sys.path.insert(0, {str(PROGRAM.parents[2])!r});"
    " from services.execution.toolbox.serve import main; main()"
)
# The interpreter that the virtual environment links to: it is in the sandbox wherever ours is.
ARGV = (bytes(Path(sys.executable).resolve()), b"-I", b"-S", b"-B", b"-c", _START.encode())
"""The command that starts the tools inside the sandbox."""

TOOLS = ("bash", "view", "create", "replace", "insert", "search")
"""The tools that a model may call; `engines.anthropic.tools` describes them to it."""
