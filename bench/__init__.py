"""What things cost, against the bare thing or an aim. A module is run by `python -m bench.NAME`; `--help` tells more.

What is compared stands in one run and in ratios, for then the machine's other work hits both sides.
"""

import services as services  # first of all: it tells gRPC, before that is imported, that we have children
