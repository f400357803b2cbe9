"""A stream output: what the camera shows, as H.264, to a file or a push URL."""

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from threading import Event, Lock, Thread
from typing import Final

from relayd.clock import Backoff, Clock, MonotonicClock
from relayd.errors import OutputError, Unavailable
from relayd.logs import LogEvent, get, redact
from relayd.media.encode_sound import AudioCodec
from relayd.media.frames import Geometry, OutputFrame
from relayd.media.slots import SharedSlot
from relayd.output.base import OutputChange, OutputEvent
from relayd.output.pusher import Order, Report
from relayd.output.recording import Part
from relayd.process.child import Child, describe_exit
from relayd.process.environment import proxies, python_environment
from relayd.process.limits import start_thread
from relayd.process.lines import LineReader, LineTooLong
from relayd.sound.blocks import AudibleSound
from relayd.sound.ring import SharedRing
from relayd.urls.safe import MediaUrl
from relayd.urls.targets import format_of, is_push

_log = get("stream")

STALL_LIMIT: Final = 10.0
"""s without a report after which the encoder process is killed: longer than a slow TLS
handshake, shorter than a viewer waits."""
FINISH_LIMIT: Final = 3.0
"""s that the process has to write a file's end when we stop; then it is killed."""
_FIRST_WAIT, _WAIT_CAP = 0.25, 10.0
"""s between attempts to push again."""
_POLL = 0.2
"""s within which a stop is noticed."""
_LARGEST_REPORT: Final = 64 * 1024
"""Bytes of a report; a normal one has a few hundred, plus the text of an error."""
_LARGEST_ORDER: Final = 32 * 1024
"""Bytes of an order: less than a pipe holds, so that writing it never blocks."""
_REAP_LIMIT: Final = 1.0
"""s for a process that closed its stdout to exit."""
_RING: Final = 2.0
"""s of sound that may wait for the process: it is niced, and may wait for the network."""
_MOST_PARTS: Final = 100
"""Files of a recording that are remembered by name."""


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Counts since open()."""

    frames: int
    """Pictures encoded and passed to the network or the disk."""
    dropped: int
    """Pictures left out because encoder or network were too slow."""
    reconnects: int
    """Times that the output was opened again."""
    up: bool
    """Whether pictures are getting through."""


class StreamOutput:
    """Passes each shown picture to a separate process over shared memory; latest frame wins.

    A thread `relayd-stream-N` starts that process, reads its reports, kills it when it hangs
    and restarts it with backoff when it has ended. An existing file is never overwritten: a
    recording whose file can no longer be written (disk full, folder removed) continues in a new
    part, "out-1.mp4" after "out.mp4", as soon as possible; so does one after a restart.
    """

    def __init__(
        self,
        url: str | MediaUrl,
        geometry: Geometry,
        fps: float,
        bitrate_kbit: int,
        *,
        name: str = "",
        number: int = 1,
        audio: AudioCodec | None = None,
        on_event: Callable[[OutputEvent], None] | None = None,
        clock: Clock | None = None,
        stall_limit: float = STALL_LIMIT,
        finish_limit: float = FINISH_LIMIT,
        # -P: never import from the current directory.
        command: Sequence[str] = (sys.executable, "-P", "-m", "relayd.output.pusher"),
    ) -> None:
        """Prepare the stream; `name` defaults to its URL's safe form, `number` names its thread.

        With `audio` it has a sound track, silent where nothing is played. `on_event` is called in
        that thread.
        """
        self._url = MediaUrl.of(url)
        self.name = name or str(self._url)
        self._geometry, self._fps, self._bitrate_kbit = geometry, fps, bitrate_kbit
        self._number, self._audio = number, audio
        self._on_event = on_event or (lambda _event: None)
        self._clock = clock or MonotonicClock()
        self._stall_limit, self._finish_limit = stall_limit, finish_limit
        self._command = list(command)
        self._stop = Event()
        self._lock = Lock()
        self._stats = StreamStats(0, 0, 0, up=False)
        self._files: deque[str] = deque(maxlen=_MOST_PARTS)
        self.trouble = ""
        """Why it does not work, as in the latest event; empty while it works or is starting."""
        self._slot: SharedSlot | None = None
        self._ring: SharedRing | None = None
        self._thread: Thread | None = None

    def open(self) -> None:
        """Start the thread; failures after that are reported as events.

        Raises OutputError if the system has no thread or descriptor left.
        """
        if self._thread:
            return
        self._stop.clear()
        name = f"stream-{self._number}"
        try:
            with ExitStack() as undo:
                slot = SharedSlot.create(self._geometry, name)
                undo.callback(slot.close)
                self._ring = SharedRing.create(_RING, name) if self._audio else None
                undo.pop_all()
        except OSError as fault:
            raise OutputError(f"{self.name}: {fault.strerror}") from fault
        thread = Thread(target=self._run, args=(slot,), name=f"relayd-{name}", daemon=True)
        try:
            start_thread(thread)
        except Unavailable as fault:
            slot.close()
            self._close_ring()
            raise OutputError(f"{self.name}: {fault.message}", hint=fault.hint) from fault
        self._slot, self._thread = slot, thread

    def show(self, frame: OutputFrame) -> None:
        """Copy the picture into shared memory for the process; never blocks."""
        if self._slot:
            self._slot.write(frame.i420, self._clock.now())

    def play(self, sound: AudibleSound) -> None:
        """Copy the block into shared memory for the process; never blocks."""
        with self._lock:
            if self._ring:
                self._ring.write(sound.samples, sound.at)

    def _close_ring(self) -> None:
        with self._lock:  # a block may be written just now
            ring, self._ring = self._ring, None
        if ring:
            ring.close()

    def close(self) -> None:
        """Finish the stream or file; takes little more than FINISH_LIMIT at most."""
        if not self._thread or not self._slot:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._slot.close()
        self._slot = None
        self._close_ring()

    def stats(self) -> StreamStats:
        """Return the counts so far."""
        with self._lock:
            return self._stats

    def files(self) -> tuple[str, ...]:
        """Return the files that got pictures since open(), the newest last; none for a push URL."""
        with self._lock:
            return tuple(self._files)

    def _run(self, slot: SharedSlot) -> None:
        backoff = Backoff(_FIRST_WAIT, _WAIT_CAP)
        reported = ""
        while not self._stop.is_set():
            run = _EncoderRun()
            try:
                self._run_once(slot, run)
            except Exception as fault:  # noqa: BLE001 - else it would count as working forever
                if not isinstance(fault, OutputError):
                    _log.error(LogEvent.OUTPUT_FAILED, output=self.name, exc_info=fault)
                self._update(up=False)
                reason = str(fault) or type(fault).__name__
                if run.up_since or reason != reported:
                    reported = reason
                    self.trouble = reported
                    self._on_event(OutputEvent(self.name, OutputChange.LOST, reported))
            good_for = self._clock.now() - run.up_since if run.up_since else 0.0
            wait = backoff.next_wait(good_for)
            if self._clock.sleep_until(self._clock.now() + wait, self._stop):
                return
            self._update(reconnects=1)

    def _run_once(self, slot: SharedSlot, run: "_EncoderRun") -> None:
        """Push, or write one file, until stop(); raises OutputError when that fails."""
        url = self._url.reveal()
        if is_push(url):
            self._write_until_broken(url, slot, run)
            return
        format_of(url)  # raises for an unknown suffix, before a file is created
        run.part = Part.create(url, self._bitrate_kbit)
        try:
            # Absolute: FFmpeg would read "pipe:1.mkv" as one of its protocols.
            self._write_until_broken(str(run.part.path.absolute()), slot, run)
        finally:
            run.part.close(is_empty=not run.frames)

    def _write_until_broken(self, target: str, slot: SharedSlot, run: "_EncoderRun") -> None:
        """Run one process until stop(); raises OutputError when it fails."""
        order = Order(
            parent=os.getpid(),
            target=target,
            width=self._geometry.width,
            height=self._geometry.height,
            fps=self._fps,
            bitrate_kbit=self._bitrate_kbit,
            memory_fd=slot.memory_fd,
            bell_fd=slot.bell_fd,
        )
        if self._ring and self._audio:
            order = replace(
                order,
                audio=self._audio,
                sound_capacity=self._ring.capacity,
                sound_memory_fd=self._ring.memory_fd,
                sound_bell_fd=self._ring.bell_fd,
            )
        order_line = json.dumps(asdict(order)).encode() + b"\n"
        if len(order_line) > _LARGEST_ORDER:
            raise OutputError(f"{self.name}: the URL is longer than {_LARGEST_ORDER} bytes")
        process = self._spawn(order)
        reports = LineReader(process.stdout.fileno(), largest=_LARGEST_REPORT)
        try:
            process.stdin.write(order_line)
            self._read_reports(process, reports, run)
        except BrokenPipeError as fault:
            raise OutputError(f"{self.name}: {_describe_end(process)}") from fault
        except LineTooLong as fault:
            process.kill()
            raise OutputError(f"{self.name}: the encoder's process sent {fault}") from fault
        finally:
            self._finish(process, reports, run)

    def _spawn(self, order: Order) -> Child:
        try:
            return Child.start(
                self._command,
                environment=python_environment() | proxies(),
                pass_fds=order.fds,
                with_stdin=True,
                with_stdout=True,
            )
        except OSError as fault:
            raise OutputError(f"{self.name}: cannot start a process: {fault.strerror}") from fault

    def _read_reports(self, process: Child, reports: LineReader, run: "_EncoderRun") -> None:
        """Handle reports until stop(); only reports count as progress, other output does not."""
        reported_at = self._clock.now()
        while not self._stop.is_set():
            if run.part:
                run.part.require_there(self.name)
            for line in reports.read(_POLL):
                if self._handle_report(line, run):
                    reported_at = self._clock.now()
            if reports.at_end:
                raise OutputError(f"{self.name}: {_describe_end(process)}")
            if self._clock.now() - reported_at > self._stall_limit:
                process.kill()
                raise OutputError(f"{self.name}: no progress for {self._stall_limit:g} s")

    def _handle_report(self, line: bytes, run: "_EncoderRun") -> bool:
        """Handle a report; False if it is not one. Raises OutputError if it reports an error."""
        report = Report.from_line(line)
        if report is None:
            return False
        self._update(frames=report.frames - run.frames, dropped=report.dropped - run.dropped)
        run.frames, run.dropped = report.frames, report.dropped
        if report.error:
            raise OutputError(redact(report.error))
        if report.connected and run.up_since is None:
            run.up_since = self._clock.now()
            self._update(up=True)
            self.trouble = ""
            file = str(run.part.path) if run.part else ""
            if file:
                with self._lock:
                    self._files.append(file)
            self._on_event(OutputEvent(self.name, OutputChange.BACK, file=file))
        return True

    def _finish(self, process: Child, reports: LineReader, run: "_EncoderRun") -> None:
        """Let the process write the end, kill it if it does not, and read its last reports."""
        process.stdin.close()
        if not process.end(self._finish_limit):
            _log.warning(LogEvent.OUTPUT_FINISH_TIMEOUT, output=self.name)
        with process.stdout:
            for line in _remaining_lines(reports):
                try:
                    self._handle_report(line, run)
                except OutputError as fault:
                    _log.warning(LogEvent.OUTPUT_ENDED_BADLY, output=self.name, reason=str(fault))
        self._update(up=False)

    def _update(
        self, *, frames: int = 0, dropped: int = 0, reconnects: int = 0, up: bool | None = None
    ) -> None:
        with self._lock:
            old = self._stats
            self._stats = StreamStats(
                old.frames + frames,
                old.dropped + dropped,
                old.reconnects + reconnects,
                old.up if up is None else up,
            )


@dataclass(slots=True)
class _EncoderRun:
    """One run of the encoder process."""

    up_since: float | None = None
    frames: int = 0
    dropped: int = 0
    part: Part | None = None
    """The file that it writes, if any."""


def _remaining_lines(reports: LineReader) -> list[bytes]:
    """Read the last lines of an ended process; a child of it may still hold the pipe open."""
    try:
        return reports.read(0.0)
    except LineTooLong:
        return []


def _describe_end(process: Child) -> str:
    if not process.end(_REAP_LIMIT):
        return "the encoder's process closed its reports and was killed"
    return f"the encoder's process {describe_exit(process.poll() or 0)}"
