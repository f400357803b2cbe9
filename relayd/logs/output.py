"""Log output: JSON lines, or coloured lines for a terminal, to a stderr whose failures are ignored.

`redact` is applied to every value of every event, including tracebacks.
"""

import logging
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import structlog

from relayd.logs.events import LogEvent
from relayd.logs.redaction import redact
from relayd.urls.concealed import HIDDEN

_SECRET_KEYS = re.compile(
    r"(?i)(token|api[_-]?key|secret|password|authorization|credential)",
)


def _redact_value(key: str, value: Any) -> Any:
    if _SECRET_KEYS.search(key) and isinstance(value, str) and value:
        return HIDDEN
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(name)): _redact_value(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(key, inner) for inner in value]
    if isinstance(value, int | float | bool) or value is None:
        return value
    return redact(str(value))


def _redact_event(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {key: _redact_value(key, value) for key, value in event.items()}


def configure(level: str = "info", *, json: bool | None = None) -> None:
    """Send events to stderr: coloured lines if it is a terminal, else JSON lines."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_args: _LINES,
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module: show warnings and above.
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def report_uncaught() -> None:
    """Send what Python itself would print to the log, as Python would print secrets as they are.

    These are uncaught exceptions, in any thread and in finalizers, and warnings. Only for our
    own processes: tests and other programs have their own hooks.
    """
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


class _LineLogger:
    """Writes each event as one line to stderr.

    Its lock is reentrant: while a line is written, garbage collection may run a finalizer that
    raises, and `_log_unraisable` then logs in the same thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def msg(self, line: str) -> None:
        """Write one line."""
        stderr = _Stderr()
        with self._lock:
            stderr.write(f"{line}\n")
            stderr.flush()

    debug = info = warning = error = critical = exception = log = msg


class _Stderr:
    """stderr, except that a closed pipe or a full disk loses the line instead of raising.

    Not an io.TextIOBase: its finalizer would call `flush` when the interpreter has already cleared
    this module, and Python 3.13 prints what that raises.
    """

    def write(self, text: str) -> int:
        """Write `text`; never raises for a stderr that is gone."""
        with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: called while it writes
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush stderr; never raises for a stderr that is gone."""
        with suppress(OSError, ValueError, RuntimeError):
            sys.stderr.flush()


class _LibraryHandler(logging.StreamHandler[_Stderr]):
    """Writes the records of libraries to stderr, tracebacks included, without secrets."""

    def __init__(self) -> None:
        super().__init__(_Stderr())
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole text, its traceback included."""
        return redact(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Name the library whose record cannot be written; the default message quotes it whole."""
        self.stream.write(f"{record.name}: a message that cannot be written\n")


def _log_uncaught(
    kind: type[BaseException], fault: BaseException, trace: TracebackType | None
) -> None:
    with suppress(Exception):  # another failure could not be reported
        get("process").critical(LogEvent.EXCEPTION_UNCAUGHT, exc_info=(kind, fault, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or isinstance(args.exc_value, SystemExit):
        return
    with suppress(Exception):  # as above
        get("process").critical(
            LogEvent.EXCEPTION_UNCAUGHT,
            thread=args.thread.name if args.thread else "",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is None:
        return
    with suppress(Exception):  # as above; the interpreter may be ending
        get("process").error(
            LogEvent.EXCEPTION_IGNORED,
            where=args.err_msg or "in a finalizer",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


_LINES = _LineLogger()


def get(part: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one part of the relay."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=part)
    return logger
