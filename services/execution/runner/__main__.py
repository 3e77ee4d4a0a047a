"""Carry the run in the directory given as the only argument."""

import sys
from pathlib import Path

from services.execution.runner.carry import carry

carry(Path(sys.argv[1]))
