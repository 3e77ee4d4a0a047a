"""Stays of boats at one berth, in hours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stay:
    """A boat lies at the berth from `arrival` until just before `departure`."""

    boat: str
    arrival: int
    departure: int


def overlap(first: Stay, second: Stay) -> bool:
    """Return True if two stays need the berth at the same time."""
    return first.arrival <= second.departure and second.arrival < first.departure


def conflicts(stays: list[Stay]) -> list[tuple[str, str]]:
    """Return every pair of boats that cannot both have the berth."""
    ordered = sorted(stays, key=lambda stay: (stay.arrival, stay.boat))
    return [
        (one.boat, other.boat)
        for position, one in enumerate(ordered)
        for other in ordered[position + 1 :]
        if overlap(other, one)
    ]
