"""Notifications to systemd: the sd_notify protocol (man sd_notify(3)), one datagram a message.

Without $NOTIFY_SOCKET, as in a terminal, nothing is sent.
"""

import os
import socket
import time
from collections.abc import Mapping

from relayd import logs
from relayd.logs import LogEvent, printable

_LONGEST_STATUS = 512
"""Characters of a STATUS line; `systemctl status` shows one terminal line of it."""


class Notifier:
    """Sends messages to the service manager that $NOTIFY_SOCKET names, if any.

    A message that cannot be delivered is logged once and dropped: an unreachable service manager
    is no reason to stop relaying. Only READY is kept, as a start without it counts as failed: it
    is sent with each later message, or by `resend_ready`, until it is delivered.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = watchdog_interval(environ)
        self._warned = False
        self._ready_pending = False
        self._log = logs.get("notify")

    @property
    def active(self) -> bool:
        """Whether there is a service manager."""
        return self._address is not None

    @property
    def watchdog(self) -> float | None:
        """Seconds between two `alive()` that the service manager asks for; None: no watchdog."""
        return self._watchdog

    def ready(self, status: str = "") -> None:
        """Report that start-up or reload is done."""
        self._ready_pending = True
        self._send(_status(status))

    def resend_ready(self) -> None:
        """Send READY again if it could not be delivered."""
        if self._ready_pending:
            self._send()

    def status(self, text: str) -> None:
        """Send a status line, which `systemctl status` shows."""
        self._send(_status(text))

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready()` ends that.

        The time stamp lets systemd tell this reload from an earlier one (Type=notify-reload).
        """
        self._ready_pending = False  # the READY after the reload replaces it
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """Report that the relay is being stopped."""
        self._ready_pending = False
        self._send("STOPPING=1", _status(status))

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        ready = ("READY=1",) if self._ready_pending else ()
        message = "\n".join(line for line in (*ready, *assignments) if line)
        encoded = printable(message).encode()  # a file's name may be no UTF-8
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A full queue must not block the event loop; the next message comes soon.
                sender.setblocking(False)
                sender.sendto(encoded, self._address)
                self._ready_pending = False
        except OSError as fault:
            if not self._warned:
                self._warned = True
                self._log.warning(LogEvent.SYSTEMD_UNREACHABLE, reason=str(fault))


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds between two WATCHDOG=1: half of the allowed time, as systemd advises.

    None if no watchdog is set, or it is for another process (man sd_watchdog_enabled(3)).
    """
    try:
        allowed = int(environ.get("WATCHDOG_USEC", "0"))
        wanted = int(environ.get("WATCHDOG_PID", "") or os.getpid())
    except ValueError:
        return None
    return allowed / 2 / 1e6 if allowed > 0 and wanted == os.getpid() else None


def _address(name: str) -> str | None:
    if name.startswith("@"):  # a Linux abstract socket: its name begins with a zero byte
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _status(text: str) -> str:
    """Return the STATUS assignment, in one line: a line break would start another assignment."""
    return f"STATUS={' '.join(logs.redact(text).split())[:_LONGEST_STATUS]}" if text else ""
