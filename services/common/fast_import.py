"""Imports a service's modules faster; this module itself imports next to nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Disable garbage collection during imports, and exempt what was imported from it for good.

    Measured: otherwise it takes a fifth of a gateway's start, because the collector walks everything again and again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
