"""The metrics of a service, and how they are collected.

A `Meters` is made in app.py and passed to whoever counts; there is no global registry. docs/metrics.md names every
metric. Labels have few values, all known when the program is written: never an id, never a user's name for something.
"""

from services.common.metrics.meters import Meters

__all__ = ["Meters"]
