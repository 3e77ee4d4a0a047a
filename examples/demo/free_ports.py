"""Print a gateway address whose port, and whose cell's other ports, are free on this machine right now."""

import random
import socket


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


while True:
    base = random.randrange(20000, 30000, 32)
    if all(is_free(base + offset) for offset in (0, 1, 2, 3, 20)):
        print(f"127.0.0.1:{base}")
        break
