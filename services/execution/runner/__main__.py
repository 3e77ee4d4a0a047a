"""Carry the run whose directory stands on standard input; a service that ends without naming one needs no runner."""

import os
import sys
from pathlib import Path

from services.execution.runner.carry import carry

directory = sys.stdin.buffer.readline().removesuffix(b"\n")
if directory:
    carry(Path(os.fsdecode(directory)))
