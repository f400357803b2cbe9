"""The process behind a stream output: pictures from shared memory into a file or a push URL.

FFmpeg may wait for a peer without a time limit and with the interpreter lock held (see
relayd.media.encode); here that stops nobody, and the parent kills what hangs. The order comes
as one JSON line on stdin, because a URL may hold a stream key and arguments can be read by
everybody. stdin is also the lifeline: when it ends, the output is finished and closed.
What happens is told on stdout, one JSON object a line.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np

from relayd.errors import OutputError
from relayd.frames import Geometry
from relayd.media.encode import VideoWriter
from relayd.slots import SharedSlot

REPORT_EVERY: Final = 0.5
"""s between two reports; a parent that hears none for long knows that we hang."""
_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 5
"""Encoding gives way to the camera's beat when the machine is short of time."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to write and where."""

    target: str
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


def main() -> None:
    """Run until stdin ends or the output breaks."""
    # A terminal's Ctrl-C and systemd's SIGTERM reach every process of the group: the parent
    # decides when a file is finished. If it dies without a word, so do we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICE)
    # Unbuffered: what follows the order must stay in the pipe for select to see.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        order = Order(**json.loads(pipe.readline()))
    report = _push(order)
    _tell(report)
    sys.exit(1 if report.error else 0)


def _push(order: Order) -> Report:
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
        return Report(error=str(fault))
    error = ""
    try:
        while _wait(slot):
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
                _tell(report)
    except OutputError as fault:
        error = str(fault)
    try:
        writer.close()
    except OutputError as fault:
        error = error or str(fault)
    return replace(report, error=error)


def _wait(slot: SharedSlot) -> bool:
    """Wait for a picture, at most REPORT_EVERY; False when stdin has ended."""
    ready, _, _ = select.select([slot.bell_fd, sys.stdin.fileno()], [], [], REPORT_EVERY)
    if slot.bell_fd in ready:
        slot.wait(0)
    return sys.stdin.fileno() not in ready


def _tell(report: Report) -> None:
    try:
        os.write(sys.stdout.fileno(), json.dumps(asdict(report)).encode() + b"\n")
    except OSError:  # the parent is gone or going
        return


if __name__ == "__main__":
    main()
