"""Run what is planned in the directory that the first line of standard input names; the engine's credentials follow.

A service that ends without naming a run needs no runner.
"""

import os
import sys
from pathlib import Path

from services.execution.cgroups.group import join_new
from services.execution.runner.run import run_execution

group = join_new()  # while there is time: it takes longer than to start a sandbox
directory = sys.stdin.buffer.readline().removesuffix(b"\n")
if directory:
    run_execution(Path(os.fsdecode(directory)), sys.stdin.buffer.read(), group)
if group is not None:
    group.leave()
    group.remove()
