"""Run the plan in the directory that the first line of standard input names; the engine's credentials follow that line.

If the service ends without naming a directory, there is nothing to run.
"""

import os
import sys
from pathlib import Path

from services.execution.cgroups.group import join_new
from services.execution.runner.run import run_execution

group = join_new()  # while the runner waits for a run, because this takes longer than starting a sandbox
directory = sys.stdin.buffer.readline().removesuffix(b"\n")
if directory:
    run_execution(Path(os.fsdecode(directory)), sys.stdin.buffer.read(), group)
if group is not None:
    group.leave()
    group.remove()
