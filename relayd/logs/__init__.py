"""Logging: one event a fact, JSON unless a person reads along, secrets never."""

from relayd.logs.events import LogEvent
from relayd.logs.output import configure, get, report_uncaught
from relayd.logs.redaction import conceal, excerpt, printable, redact

__all__ = [
    "LogEvent",
    "conceal",
    "configure",
    "excerpt",
    "get",
    "printable",
    "redact",
    "report_uncaught",
]
