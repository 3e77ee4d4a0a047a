"""What a service counts and measures of itself, and how its gateway is told.

A `Meters` is made in app.py and given to whoever counts; there is no registry of the process. docs/metrics.md names
every metric. Labels have few values, all known when the program is written: never an id, never what a user has named.
"""

from services.common.metrics.meters import Meters

__all__ = ["Meters"]
