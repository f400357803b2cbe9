"""The process behind a stream output: pictures from shared memory into a file or a push URL.

FFmpeg may wait for a peer without a time limit and with the interpreter lock held (see
relayd.media.encode); here that stops nobody, and the parent kills what hangs. The order comes
as one JSON line on stdin, because a URL may hold a stream key and arguments can be read by
everybody. stdin is also the lifeline: when it ends, the output is finished and closed.
What happens is told on stdout, one JSON object a line. Both pipes are moved to descriptors of
ours first: no library can write among the reports, and no program that one starts holds them.
"""

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Self

import numpy as np

from relayd import logs
from relayd.errors import OutputError
from relayd.media.encode import VideoWriter
from relayd.media.frames import Geometry
from relayd.media.slots import SharedSlot
from relayd.process.descriptors import keep_from_children, wait_readable
from relayd.process.hardening import die_with_parent, forbid_dumps

REPORT_EVERY: Final = 0.5
"""s between two reports; a parent that hears none for long knows that we hang."""
_LONGEST_ERROR: Final = 500
"""Characters of an error that are told: escaped, they still reach a pipe whole (PIPE_BUF)."""
LAST_REPORT_LIMIT: Final = 1.0
"""s that the last report is waited with for a parent that does not read."""
_NICE: Final = 5
"""Encoding gives way to the camera's beat when the machine is short of time."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to write and where."""

    parent: int
    """The process id of who orders it."""
    target: str = field(repr=False)
    width: int
    height: int
    fps: float
    bitrate_kbit: int
    memory_fd: int
    bell_fd: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the process tells its parent."""

    frames: int = 0
    """Pictures written so far."""
    dropped: int = 0
    """Pictures that came while one was being written, and were left out."""
    connected: bool = False
    """Whether pictures get through."""
    error: str = ""
    """Why it ends; empty while it runs and after a clean end."""

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """Read one; None where the line is no report, as that of a native library."""
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict) or fields.keys() != _FIELD_TYPES.keys():
            return None
        if any(type(fields[name]) is not kind for name, kind in _FIELD_TYPES.items()):
            return None
        return cls(**fields)


_FIELD_TYPES: Final = {"frames": int, "dropped": int, "connected": bool, "error": str}
"""The parts of a report."""


def main() -> None:
    """Run until stdin ends or the output breaks."""
    # A terminal's Ctrl-C and systemd's SIGTERM reach every process of the group: the parent
    # decides when a file is finished. If it dies without a word, so do we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forbid_dumps()
    logs.configure("warning")
    logs.report_uncaught()
    os.nice(_NICE)
    lifeline, reports = _take_pipes()
    # Unbuffered: what follows the order must stay in the pipe for poll to see.
    with open(lifeline, "rb", buffering=0, closefd=False) as pipe:
        order = Order(**json.loads(pipe.readline()))
    die_with_parent(order.parent)
    keep_from_children((order.memory_fd, order.bell_fd))
    report = _push(order, lifeline, reports)
    _send_report(report, reports, within=LAST_REPORT_LIMIT)
    sys.exit(1 if report.error else 0)


def _take_pipes() -> tuple[int, int]:
    """Return the pipes from and to the parent; stdin becomes empty, stdout becomes stderr.

    Telling never waits: a parent that does not read must not hold up the output.
    """
    lifeline, reports = os.dup(0), os.dup(1)  # not inheritable, as dup gives them
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    os.set_blocking(reports, False)
    return lifeline, reports


def _push(order: Order, lifeline: int, reports: int) -> Report:
    geometry = Geometry(order.width, order.height)
    slot = SharedSlot(geometry, order.memory_fd, order.bell_fd)
    picture = np.empty(geometry.shape, np.uint8)
    report = Report()
    first, seen, due = 0, 0, 0.0
    try:
        writer = VideoWriter(
            order.target,
            order.width,
            order.height,
            fps=order.fps,
            bitrate_kbit=order.bitrate_kbit,
        )
    except OutputError as fault:
        return Report(error=logs.excerpt(str(fault), _LONGEST_ERROR))
    error = ""
    try:
        while _wait(slot, lifeline):
            if found := slot.read(picture, seen):
                number, _ = found
                first = first or number
                missed = number - seen - 1 if seen else 0
                writer.write(picture, number - first)
                seen = number
                report = replace(report, frames=report.frames + 1, dropped=report.dropped + missed)
            # Asked each time: SRT's progress must be read, and the first success told at once.
            connected = writer.connected
            if time.monotonic() >= due or connected != report.connected:
                due = time.monotonic() + REPORT_EVERY
                report = replace(report, connected=connected)
                _send_report(report, reports)
    except OutputError as fault:
        error = str(fault)
    try:
        writer.close()
    except OutputError as fault:
        error = error or str(fault)
    return replace(report, error=logs.excerpt(error, _LONGEST_ERROR))


def _wait(slot: SharedSlot, lifeline: int) -> bool:
    """Wait for a picture, at most REPORT_EVERY; False when the lifeline has ended."""
    ready = wait_readable((slot.bell_fd, lifeline), REPORT_EVERY)
    if slot.bell_fd in ready:
        slot.wait(0)
    return lifeline not in ready


def _send_report(report: Report, reports: int, *, within: float = 0.0) -> None:
    """Tell the parent; one that has not read for so long that the pipe is full misses it.

    Short lines reach a pipe whole or not at all.
    """
    poll = select.poll()
    poll.register(reports, select.POLLOUT)
    poll.poll(within * 1000)
    with suppress(OSError):  # full, or the parent is gone or going
        os.write(reports, json.dumps(asdict(report)).encode() + b"\n")


if __name__ == "__main__":
    main()
