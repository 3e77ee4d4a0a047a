"""Benchmarks, against a bare equivalent or a goal. Run a module by `python -m bench.NAME`; `--help` says more.

What is compared is measured in the same run and given as a ratio, so that the machine's other work affects both sides.
"""

import services as services  # must be first: it switches gRPC's fork handlers off before grpc is imported
