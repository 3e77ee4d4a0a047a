"""Run the plan in the directory that the first line of standard input names; credentials follow that line.

If the service ends without naming a directory, there is nothing to run. With a socket as standard input, this process
runs nothing itself, and forks those that do.
"""

import os
import stat
import sys
from pathlib import Path

from services.execution.cgroups.group import join_new
from services.execution.credentials import Credentials
from services.execution.runner import fork_server
from services.execution.runner.run import run_execution

if stat.S_ISSOCK(os.fstat(0).st_mode):
    fork_server.serve()
group = join_new()
directory = sys.stdin.buffer.readline().removesuffix(b"\n")
if directory:
    run_execution(Path(os.fsdecode(directory)), Credentials.from_bytes(sys.stdin.buffer.read()), group)
if group is not None:
    group.leave()
    group.remove()
sys.stderr.flush()
os._exit(0)  # at once: the interpreter would first take apart all that the fork server had loaded
