"""The event log of one execution: length-framed records in one file, written by its runner, read by anybody.

A killed writer leaves at most one torn record, at the end: readers wait in front of it, and the next writer to open the
log cuts it off. The format is in `records`. When an execution has ended, its log is packed.
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
