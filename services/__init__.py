"""Boatyard's services: separate programs that meet only over gRPC.

Importing this package switches gRPC's fork handlers off. They break children that a gRPC process spawns, and the
switch has no effect once `grpc` is imported, so it stands before everything else (STYLE: what bites in grpc.aio).
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
