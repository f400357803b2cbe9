"""Logging: named events, as JSON or as coloured lines for a terminal, without secrets."""

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
