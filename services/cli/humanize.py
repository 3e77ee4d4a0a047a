"""Formats numbers and times for people."""

from datetime import UTC, datetime

from boatyard.agent.v1.usage_pb2 import UsageSum
from google.protobuf.timestamp_pb2 import Timestamp


def duration(milliseconds: int) -> str:
    """Return a duration such as 0.8 s, 12.3 s, 3 min 05 s or 2 h 03 min."""
    seconds = max(milliseconds, 0) / 1000
    if seconds < 59.95:  # otherwise it would be rounded to 60.0 s
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def between(start: Timestamp, end: Timestamp) -> str:
    """Return the duration between two times."""
    return duration(end.ToMilliseconds() - start.ToMilliseconds())


def age(time: Timestamp, now: datetime | None = None) -> str:
    """Return how long ago a time was, in the largest unit that fits: 12 s, 5 min, 3 h, 2 d."""
    seconds = int(((now or datetime.now(UTC)) - time.ToDatetime(UTC)).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{max(seconds, 0)} s"


def until(time: Timestamp, now: datetime | None = None) -> str:
    """Return how long it is until a time, in the largest unit that fits; "now" when it has passed."""
    seconds = int((time.ToDatetime(UTC) - (now or datetime.now(UTC))).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s" if seconds > 0 else "now"


def count(number: int, noun: str) -> str:
    """Return a count such as 1 file or 2 files."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(number: int) -> str:
    """Return a size such as 512 B, 1.5 KiB or 100.0 MiB."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def cost(*usages: UsageSum) -> str:
    """Return what requests to models cost, such as $1.25; ≥ $1.25 where the price of some is not known; or unknown."""
    known = [usage.cost_usd for usage in usages if usage.HasField("cost_usd")]
    if not known:
        return "unknown" if any(usage.requests for usage in usages) else dollars(0)
    return f"{'≥ ' if any(usage.unpriced_requests for usage in usages) else ''}{dollars(sum(known))}"


def dollars(amount: float) -> str:
    """Return an amount in US dollars: with two digits behind the point from a dollar on, else with four."""
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"
