"""One connection to a source: opens it and reads it to its end or failure, in its own thread."""

from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Final

from relayd import logs
from relayd.clock import Clock
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceLost, SourceUnreachable, Unavailable
from relayd.logs import LogEvent
from relayd.media.causes import explained
from relayd.media.frames import I420
from relayd.media.interrupt import ended_by
from relayd.media.sound import SoundFormat
from relayd.media.symptoms import Asked
from relayd.process.limits import start_thread
from relayd.sound.blocks import OwnSound
from relayd.source.events import SourceOpened
from relayd.source.inspection import inspect
from relayd.source.kinds import SourceKind
from relayd.source.limits import Run, SourceLimits
from relayd.source.opening import OpenedSource, SourceOpener
from relayd.source.paced import play_paced
from relayd.source.playing import Playback, follow, play_pipe, show_image
from relayd.source.recording import play
from relayd.source.snapshots import poll

READ_GRACE: Final = 0.5
"""s by which FFmpeg's own limit for a read is longer than the reader's, whose words say more."""

_log = logs.get("source")


class SourceConnection:
    """One connection to the source. FFmpeg may hang in its thread without blocking the caller.

    `publish` is called with each picture and returns whether it was accepted, `publish_sound` with
    each block of sound if the source is opened with it; `wake` is set on each change that the
    caller should check.
    """

    def __init__(
        self,
        settings: SourceSettings,
        opener: SourceOpener,
        *,
        limits: SourceLimits,
        clock: Clock,
        wake: Event,
        publish: Callable[["SourceConnection", I420], bool],
        publish_sound: Callable[["SourceConnection", OwnSound], None] = lambda _, __: None,
    ) -> None:
        self._settings, self._opener, self._limits = settings, opener, limits
        self._clock, self._wake, self._publish = clock, wake, publish
        self._publish_sound = publish_sound
        self._abandoned = Event()
        self._playback: Playback | None = None
        self._thread = Thread(target=self._run, name="relayd-source-read", daemon=True)
        self._release: Thread | None = None
        self.started_at = clock.now()
        self.connected_at: float | None = None
        """When the container was open."""
        self.first_picture_at: float | None = None
        """When the first picture was published."""
        self.last_picture_at: float | None = None
        """When the newest picture was published."""
        self._newest: I420 | None = None
        self._pictures = 0
        self._waited = self._longest_step = 0.0
        self.error: SourceError | None = None
        """Why it ended; None while it runs, and after the end of a recording."""
        self.ended = Event()

    def start(self) -> None:
        """Start; if no thread can be started, it ends at once."""
        try:
            start_thread(self._thread)
        except Unavailable as fault:
            name = self._settings.url
            self.error = SourceUnreachable(f"{name}: {fault.message}", hint=fault.hint)
            self.ended.set()

    def abandon(self) -> None:
        """Ignore its further pictures, and let it end as soon as FFmpeg returns.

        May be called again, for one that still hangs.
        """
        self._abandoned.set()
        device = self._opener.device
        if device is None or self.ended.is_set():  # it would end the next connection's pictures
            return
        if self._release is None or not self._release.is_alive():
            # In a thread: a camera that hangs may keep this call for seconds as well.
            release = Thread(target=device.release, name="relayd-source-release", daemon=True)
            with suppress(Unavailable):
                start_thread(release)
                self._release = release

    def join(self, timeout: float) -> bool:
        """Wait for its thread; True when that has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def note_picture(self, i420: I420, now: float) -> None:
        """Count a picture that is published at `now`, once however often it is published."""
        step = 0.0 if self.last_picture_at is None else now - self.last_picture_at
        if i420 is not self._newest:
            self._newest = i420
            self._pictures += 1
            self._waited += step
            self._longest_step = max(self._longest_step, step)
        self.last_picture_at = now
        if self.first_picture_at is None:
            self.first_picture_at = now

    def wait_again(self) -> None:
        """Count from now on: for the header, or for a first picture."""
        if self.connected_at is None:
            self.started_at = self._clock.now()
            return
        self.connected_at = self._clock.now()
        self.first_picture_at = self.last_picture_at = None

    @property
    def run(self) -> Run:
        """What it has shown so far of the source's pace."""
        key_interval = self._playback.key_interval if self._playback else 0.0
        return Run(self._pictures, self._waited, self._longest_step, key_interval)

    @property
    def lasted(self) -> float:
        """Seconds from the first to the last picture."""
        if self.first_picture_at is None or self.last_picture_at is None:
            return 0.0
        return self.last_picture_at - self.first_picture_at

    @property
    def packets(self) -> int:
        """Packets of video that have arrived."""
        return self._playback.packets if self._playback else 0

    @property
    def stream_info(self) -> SourceOpened | None:
        """What was found; set before the first picture is published."""
        return self._playback.stream_info if self._playback else None

    @property
    def sound_format(self) -> SoundFormat | None:
        """The sound beside the pictures; None without, or while that is unknown."""
        return self._playback.sound_format if self._playback else None

    @property
    def corrupt(self) -> int:
        """Packets that could not be decoded so far."""
        return self._playback.corrupt if self._playback else 0

    @property
    def late(self) -> int:
        """Pictures of a recording dropped so far because relayd was behind."""
        playback = self._playback
        return playback.late + playback.outdated if playback else 0

    @property
    def behind(self) -> float:
        """Seconds that the newest picture was late because decoding is slow."""
        return self._playback.decoding.behind if self._playback else 0.0

    @property
    def slowness(self) -> str:
        """What to tell the user when decoding is too slow; else empty."""
        return self._playback.decoding.text if self._playback else ""

    @property
    def buffered(self) -> float:
        """Seconds that pictures wait so that bursts are played evenly."""
        return self._playback.buffered if self._playback else 0.0

    @property
    def burst(self) -> float:
        """Seconds of pictures that may arrive at once, and then nothing for as long."""
        return self._playback.burst if self._playback else 0.0

    @property
    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            with ended_by(self._abandoned):
                self._read()
        except SourceError as error:
            # Without its traceback, which would keep the codec alive as long as the error.
            error = self._explained(self._opener.explained(error))
            self.error = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # our bugs must not end the relay
            _log.exception(LogEvent.SOURCE_READER_FAILED)
            self.error = SourceLost(f"the reader failed: {type(error).__name__}: {error}")
        finally:
            self.ended.set()
            self._wake.set()

    def _explained(self, error: SourceError) -> SourceError:
        """Find out why, unless it worked before: then it must be opened again at once."""
        if not error.symptom or self.first_picture_at is not None or self._abandoned.is_set():
            return error
        settings = self._settings
        asked = Asked(
            settings.url.reveal(), str(settings.url), settings.options, live=error.retryable
        )
        try:
            return explained(error, asked, inspect(error.symptom, asked, self._abandoned))
        except Exception:  # noqa: BLE001  # what FFmpeg said is better than our bug
            _log.exception(LogEvent.SOURCE_READER_FAILED)
            return error

    def _read(self) -> None:
        opened = self._open()
        self.connected_at = self._clock.now()
        self._wake.set()
        playback = self._playback = Playback(
            opened.video,
            kind=opened.kind,
            clock=self._clock,
            abandoned=self._abandoned,
            publish=lambda i420: self._publish(self, i420),
            open_again=lambda: self._open().video,
            publish_sound=lambda sound: self._publish_sound(self, sound),
        )
        try:
            self._play(playback, opened)
        finally:
            playback.close()

    def _open(self) -> OpenedSource:
        return self._opener.open(self._abandoned, self._read_limit)

    def _read_limit(self) -> float:
        """Return the s that FFmpeg may wait for data; the reader gives up a little earlier."""
        limits, is_first = self._limits, self.first_picture_at is None
        limit = limits.first_frame if is_first else limits.stall + self.burst
        return limit + READ_GRACE

    def _play(self, playback: Playback, opened: OpenedSource) -> None:
        """Play the source in the way of its kind."""
        settings = self._settings
        match playback.kind:
            case SourceKind.IMAGE:
                show_image(playback)
            case SourceKind.FILE | SourceKind.GENERATOR:
                play(playback, loop=settings.loop, path=opened.path)
            case SourceKind.BURSTS:
                play_paced(playback)
            case SourceKind.PIPE:
                play_pipe(playback)
            case _ if opened.may_be_polled:
                poll(playback, refresh=settings.refresh, stall_limit=self._limits.stall)
            case _:
                follow(playback)
