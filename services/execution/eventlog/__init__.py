"""The event log of one execution: length-framed records in one file, written by its runner, read by anybody.

A writer that was killed leaves at most one torn record at the end; opening the log for writing cuts it off, and readers
wait before it, for it was never whole. `records` has the format. When an execution has ended, its log is packed.
"""

from services.execution.eventlog.logfiles import pack
from services.execution.eventlog.reader import EventReader
from services.execution.eventlog.records import MAX_OUTPUT, DamagedRecordError, EventKind, EventLogError, Record, Stream
from services.execution.eventlog.writer import EventWriter

__all__ = [
    "MAX_OUTPUT",
    "DamagedRecordError",
    "EventKind",
    "EventLogError",
    "EventReader",
    "EventWriter",
    "Record",
    "Stream",
    "pack",
]
