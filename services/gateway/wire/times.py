"""Times and time spans, as messages."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp_to_proto(time: datetime) -> Timestamp:
    """Write a time."""
    result = Timestamp()
    result.FromDatetime(time.astimezone(UTC))
    return result


def duration_to_proto(span: timedelta) -> Duration:
    """Write a time span."""
    result = Duration()
    result.FromTimedelta(span)
    return result
