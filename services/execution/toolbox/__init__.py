"""The tools of a model, as one long-lived program inside the sandbox: they see and may do what the sandbox allows.

Its requests and answers are lines of JSON on standard input and output (`serve`). It is shown to the sandbox read-only,
alone, and runs there in isolated mode: standard library only, and nothing but this package is imported. It trusts
nobody and is trusted by nobody: what comes out of it is what a model asked to see.
"""

import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent
"""What the sandbox must show, at the same path."""

# The packages above ours are empty directories inside, which Python takes for packages all the same. Neither the
# agent's environment nor its files have a say in what is imported.
_START = (
    f"import sys; sys.path.insert(0, {str(PROGRAM.parents[2])!r});"
    " from services.execution.toolbox.serve import main; main()"
)
# The interpreter behind the virtual environment's link: that one is in the sandbox wherever ours is.
ARGV = (bytes(Path(sys.executable).resolve()), b"-I", b"-S", b"-B", b"-c", _START.encode())
"""What starts the tools, inside."""

TOOLS = ("bash", "view", "create", "replace", "insert", "search")
"""What a model may call; `engines.anthropic.tools` tells it so."""
