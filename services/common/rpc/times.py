"""Times and time spans, as messages."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp_to_proto(time: datetime) -> Timestamp:
    """Write a time."""
    message = Timestamp()
    message.FromDatetime(time.astimezone(UTC))
    return message


def duration_to_proto(span: timedelta | float) -> Duration:
    """Write a time span; a number is in seconds."""
    message = Duration()
    if isinstance(span, timedelta):
        message.FromTimedelta(span)
    else:
        message.FromNanoseconds(round(span * 1e9))
    return message


def seconds_from_proto(message: Duration) -> float:
    """Read a time span in seconds."""
    return message.seconds + message.nanos / 1e9
