"""The process behind a stream output: pictures and sound into a file or a push URL.

FFmpeg may wait for a peer without a time limit while it holds the interpreter lock (see
relayd.media.encode); in this process that blocks nothing else, and the parent kills it if it
hangs. The order comes as one JSON line on stdin, because a URL may hold a stream key and any user
can read arguments. stdin is also the lifeline: when it ends, the output is finished and closed.
Progress is reported on stdout, one JSON object per line. Both pipes are first moved to other
descriptors: no library can write between the reports, and no program that one starts keeps them
open.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Self

import numpy as np

from relayd import logs
from relayd.errors import OutputError
from relayd.media.encode import VideoWriter
from relayd.media.encode_sound import AudioCodec, SharedTime, joined
from relayd.media.frames import Geometry
from relayd.media.slots import SharedSlot
from relayd.process.descriptors import keep_from_children, wait_readable
from relayd.process.hardening import die_with_parent, forbid_dumps
from relayd.sound.blocks import Samples
from relayd.sound.ring import SharedRing

REPORT_EVERY: Final = 0.5
"""s between two reports; without any for long, the parent knows that this process hangs."""
_LONGEST_ERROR: Final = 500
"""Characters of an error that are reported: escaped, they still fit an atomic pipe write
(PIPE_BUF)."""
LAST_REPORT_LIMIT: Final = 1.0
"""s to wait with the last report for a parent that does not read."""
_NICE: Final = 5
"""Encoding yields to the output clock when the machine is short of CPU time."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to write and where."""

    parent: int
    """The process id of the parent."""
    target: str = field(repr=False)
    width: int
    height: int
    fps: float
    bitrate_kbit: int
    memory_fd: int
    bell_fd: int
    audio: AudioCodec | None = None
    """How the sound is encoded; None: there is none."""
    sound_capacity: int = 0
    """Blocks in the ring of sound."""
    sound_memory_fd: int = -1
    sound_bell_fd: int = -1

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that the process inherits."""
        sound = (self.sound_memory_fd, self.sound_bell_fd) if self.audio else ()
        return self.memory_fd, self.bell_fd, *sound


@dataclass(frozen=True, slots=True)
class Report:
    """What the process reports to its parent."""

    frames: int = 0
    """Pictures written so far."""
    dropped: int = 0
    """Pictures that came while one was being written and were left out."""
    connected: bool = False
    """Whether pictures get through to the target."""
    error: str = ""
    """Why it ended; empty while it runs and after a clean end."""

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """Parse one; None if the line is not a report, such as output of a native library."""
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
"""The fields of a report and their types."""


def main() -> None:
    """Run until stdin ends or the output breaks."""
    # A terminal's Ctrl-C and systemd's SIGTERM reach every process of the group: the parent
    # decides when a file is finished. If the parent dies, this process is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forbid_dumps()
    logs.configure("warning")
    logs.report_uncaught()
    os.nice(_NICE)
    lifeline, reports = _take_pipes()
    # Unbuffered: what follows the order must stay in the pipe, where poll sees it.
    with open(lifeline, "rb", buffering=0, closefd=False) as pipe:
        order = Order(**json.loads(pipe.readline()))
    die_with_parent(order.parent)
    keep_from_children(order.fds)
    report = _push(order, lifeline, reports)
    _send_report(report, reports, within=LAST_REPORT_LIMIT)
    sys.exit(1 if report.error else 0)


def _take_pipes() -> tuple[int, int]:
    """Return the pipes from and to the parent; stdin becomes empty, stdout becomes stderr.

    Writing reports never blocks: a parent that does not read must not delay the output.
    """
    lifeline, reports = os.dup(0), os.dup(1)  # not inheritable: os.dup sees to that
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    os.set_blocking(reports, False)
    return lifeline, reports


def _push(order: Order, lifeline: int, reports: int) -> Report:
    geometry = Geometry(order.width, order.height)
    slot = SharedSlot(geometry, order.memory_fd, order.bell_fd)
    ring = _ring_of(order)
    shared_time = SharedTime()
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
            audio=order.audio,
        )
    except OutputError as fault:
        return Report(error=logs.excerpt(str(fault), _LONGEST_ERROR))
    error = ""
    try:
        while _wait(slot, lifeline):
            if report.frames:
                # Before the picture: one that comes after a long wait has silence put where there
                # is no sound yet, and what came meanwhile would be too late.
                _write_sound(ring, shared_time, writer)
            if found := slot.read(picture, seen):
                number, shown_at = found
                first = first or number
                missed = number - seen - 1 if seen else 0
                since = shared_time.begin(shown_at)
                writer.write(picture, round(since * 1000) if ring else number - first)
                seen = number
                report = replace(report, frames=report.frames + 1, dropped=report.dropped + missed)
            # Every time: SRT's progress must be consumed, and the first success reported at once.
            connected = writer.connected
            if time.monotonic() >= due or connected != report.connected:
                due = time.monotonic() + REPORT_EVERY
                report = replace(report, connected=connected)
                _send_report(report, reports)
        _write_sound(ring, shared_time, writer)  # what came since the last picture
    except OutputError as fault:
        error = str(fault)
    try:
        writer.close()
    except OutputError as fault:
        error = error or str(fault)
    return replace(report, error=logs.excerpt(error, _LONGEST_ERROR))


def _ring_of(order: Order) -> SharedRing | None:
    if not order.audio:
        return None
    return SharedRing(order.sound_capacity, order.sound_memory_fd, order.sound_bell_fd)


def _write_sound(ring: SharedRing | None, shared_time: SharedTime, writer: VideoWriter) -> None:
    """Write the blocks that wait; those from before the first picture are dropped."""
    if ring:
        for samples, since in joined(_waiting(ring, shared_time)):
            writer.write_sound(samples, since)


def _waiting(ring: SharedRing, shared_time: SharedTime) -> Iterator[tuple[Samples, float]]:
    """Take the blocks that wait, each with its time in s after the first picture."""
    while block := ring.read():
        samples, at = block
        if (since := shared_time.since_first(at)) is not None:
            yield samples, since


def _wait(slot: SharedSlot, lifeline: int) -> bool:
    """Wait for a picture, at most REPORT_EVERY; False when the lifeline has ended.

    Sound waits for the next picture: to wake up for each block would cost as much as encoding it.
    """
    ready = wait_readable((slot.bell_fd, lifeline), REPORT_EVERY)
    if slot.bell_fd in ready:
        slot.wait(0)
    return lifeline not in ready


def _send_report(report: Report, reports: int, *, within: float = 0.0) -> None:
    """Send a report; it is dropped if the pipe is full because the parent has not read for long.

    Short lines are written to a pipe whole or not at all.
    """
    poll = select.poll()
    poll.register(reports, select.POLLOUT)
    poll.poll(within * 1000)
    with suppress(OSError):  # full, or the parent is ending
        os.write(reports, json.dumps(asdict(report)).encode() + b"\n")


if __name__ == "__main__":
    main()
