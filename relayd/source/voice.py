"""Captures the voice from a sound device, or any sound that FFmpeg reads, beside the picture.

The ffmpeg program does it: it can be killed whatever a sound server does, and PyAV's ALSA loads
libraries from a folder that anybody may write to. Pictures never wait for it.
"""

import os
from collections.abc import Callable
from threading import Lock, Thread
from typing import Final

import numpy as np

from relayd import logs
from relayd.clock import Backoff, Clock, MonotonicClock
from relayd.config.settings import SoundSettings
from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.logs import LogEvent
from relayd.media.playout import ClockMapping
from relayd.media.sound import SoundFormat
from relayd.process.ffmpeg import FfmpegProgram
from relayd.process.limits import start_thread
from relayd.sound.blocks import RATE, OwnSound
from relayd.sound.ring import SoundRing
from relayd.source.requests import Requests
from relayd.source.sound_blocks import BlockMaker
from relayd.source.sound_watch import SourceSound
from relayd.source.voice_place import PlaceWatch
from relayd.source.voice_plans import (
    NO_DEVICE,
    VoicePlan,
    plan_voice,
    require_foreign,
    require_voice,
)

FIRST_RETRY: Final = 0.25
"""s until the first attempt after a loss."""
LONGEST_RETRY: Final = 2.0
"""s between attempts: a sound server that was started again is back within that."""
FIRST_LIMIT: Final = 10.0
"""s from the start to the first sound: a stream's server may take its time."""
STALL_LIMIT: Final = 2.0
"""s without data after which a device counts as hung."""
_WAKE: Final = 0.1
"""s between looks whether the voice is still wanted."""
_MOST_READ: Final = 64 * 1024
_SAMPLE_BYTES: Final = 2
_WINDOW: Final = 2.0
"""s whose fastest read tells when samples were captured; and after which a hole is noticed."""

_log = logs.get("source")


def make_voice(
    settings: SoundSettings, ring: SoundRing[OwnSound], clock: Clock
) -> "VoiceReader | None":
    """Return what captures the voice; None where it is the source's own sound, or none."""
    return None if settings.source in NO_DEVICE else VoiceReader(settings.source, ring, clock=clock)


class CaptureTimes:
    """When samples were captured, by how many came until when; pure."""

    def __init__(self) -> None:
        self._mapping = ClockMapping(_WINDOW)
        self._count = 0

    def arrived(self, samples: int, now: float) -> float:
        """Return when the first of so many samples that arrived now was captured.

        The fastest arrivals tell: others were held up on the way.
        """
        first = self._count / RATE
        self._count += samples
        self._mapping.arrived(self._count / RATE, now)
        return first + self._mapping.offset


class VoiceReader:
    """Puts a voice into `ring` for as long as it runs, in a thread of its own."""

    def __init__(
        self,
        source: str,
        ring: SoundRing[OwnSound],
        *,
        clock: Clock | None = None,
        retry: Backoff | None = None,
        start_program: Callable[..., FfmpegProgram] = FfmpegProgram,
    ) -> None:
        """`source` is as in `[sound]`: neither `auto` nor `none`."""
        self._plan = plan_voice(source)
        self._clock = clock or MonotonicClock()
        self._retry = retry or Backoff(FIRST_RETRY, LONGEST_RETRY)
        self._start_program = start_program
        self._requests = Requests(self._clock)
        self._lock = Lock()
        self._attempt = 0
        self._place = ""
        """The sound server's source that is captured; empty where that is not known."""
        self._thread = Thread(target=self._run, name="relayd-voice", daemon=True)
        self.sound = SourceSound(ring, self._clock)
        """What is heard."""
        self.trouble = ""
        """Why nothing is heard; empty while something is, and while none is wanted."""

    @property
    def plan(self) -> VoicePlan:
        """How it is captured."""
        return self._plan

    def start(self) -> None:
        """Start capturing; only once. Raises Unavailable if no thread can be started."""
        if self._plan.shows_secret:
            hint = "ffmpeg takes it as an argument; mount /proc with hidepid=invisible"
            _log.warning(LogEvent.SOURCE_SECRET_READABLE, url=self._plan.name, hint=hint)
        start_thread(self._thread)

    def stop(self) -> None:
        """Stop; the device is closed when this returns."""
        self._requests.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def pause(self) -> None:
        """Close the device until `resume`, so that the microphone's light goes out."""
        self._requests.pause()

    def resume(self) -> None:
        """Open the device again."""
        self._requests.resume()

    def _run(self) -> None:
        while not self._requests.is_stopped:
            self._requests.take_restart()
            if self._requests.is_paused:
                self.trouble = ""
                self.sound.clear()
                self._requests.wait_until(None)
                continue
            began = self._clock.now()
            try:
                self._capture()
            except SourceError as fault:
                self.sound.closed()
                self._note(fault)
                self._attempt += 1
                wait = self._retry.next_wait(self._clock.now() - began)
                self._requests.wait_until(self._clock.now() + wait)
            finally:
                self.sound.closed()

    def _note(self, fault: SourceError) -> None:
        """Say why there is no voice, once for each reason."""
        if self.trouble != fault.message:
            self.trouble = fault.message
            self.sound.losses += 1
            _log.warning(LogEvent.SOUND_LOST, reason=fault.message, hint=fault.hint or None)

    def _capture(self) -> None:
        """Capture until something else is wanted; raises SourceError when that fails."""
        require_foreign(self._plan)
        attempts, name = self._plan.attempts, self._plan.name
        arguments = attempts[self._attempt % len(attempts)]
        program = self._start_program(
            arguments, self._plan.url, name, SourceUnusable, part=self._plan.part
        )
        self._place = ""
        watch = PlaceWatch(program.pid, self._note_place) if self._plan.part == "pulse" else None
        try:
            if watch:
                watch.start()
            self._read(program)
        finally:
            program.end(within=0.0)
            if watch:
                watch.stop()

    def _note_place(self, source: str) -> None:
        self._place = source

    def _read(self, program: FfmpegProgram) -> None:
        times, blocks = CaptureTimes(), BlockMaker()
        deadline, rest = self._clock.now() + FIRST_LIMIT, b""
        while not self._requests.wants_none:
            require_voice(self._plan, self._place)
            if not program.has_output(within=_WAKE):
                if self._clock.now() >= deadline:
                    raise SourceLost(f"{self._plan.name}: no sound arrives")
                continue
            data = os.read(program.stdout.fileno(), _MOST_READ)
            now = self._clock.now()
            if not data:
                kind = SourceLost if self.sound.is_heard else SourceUnreachable
                raise kind(f"{self._plan.name}: {program.explanation()}")
            data = rest + data
            whole = len(data) // _SAMPLE_BYTES * _SAMPLE_BYTES
            samples, rest = np.frombuffer(data[:whole], np.int16), data[whole:]
            if self.sound.format is None:
                self._opened()
            deadline = now + STALL_LIMIT
            for block in blocks.put(samples, times.arrived(len(samples), now)):
                self.sound.put(block)

    def _opened(self) -> None:
        if self.trouble:
            self.trouble = ""
            _log.info(LogEvent.SOUND_BACK)
        self.sound.opened(SoundFormat(self._plan.part, RATE, 1))
