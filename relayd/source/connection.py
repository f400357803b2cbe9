"""One connection to a source: opens it and reads it to its end or failure, in its own thread."""

from collections.abc import Callable
from threading import Event, Thread

from relayd import logs
from relayd.clock import Clock
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceLost, SourceUnreachable, Unavailable
from relayd.logs import LogEvent
from relayd.media.frames import I420, FitMode, Geometry
from relayd.process.limits import start_thread
from relayd.source.events import SourceOpened
from relayd.source.kinds import SourceKind
from relayd.source.opening import SourceOpener
from relayd.source.paced import play_paced
from relayd.source.playing import Playback, follow, play, show_image

_log = logs.get("source")


class SourceConnection:
    """One connection to the source. FFmpeg may hang in its thread without blocking the caller.

    `publish` is called with each picture and returns whether it was accepted; `wake` is set on
    each change that the caller should check.
    """

    def __init__(
        self,
        settings: SourceSettings,
        geometry: Geometry,
        fit: FitMode,
        *,
        clock: Clock,
        wake: Event,
        publish: Callable[["SourceConnection", I420], bool],
    ) -> None:
        self._settings = settings
        self._clock, self._wake, self._publish = clock, wake, publish
        self._abandoned = Event()
        self._opener = SourceOpener(settings, geometry, fit, self._abandoned)
        self._playback: Playback | None = None
        self._thread = Thread(target=self._run, name="relayd-source-read", daemon=True)
        self.started_at = clock.now()
        self.connected_at: float | None = None
        """When the container was open."""
        self.first_picture_at: float | None = None
        """When the first picture was published."""
        self.last_picture_at: float | None = None
        """When the newest picture was published."""
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
        """Ignore its further pictures, and let it end as soon as FFmpeg returns."""
        self._abandoned.set()

    def join(self, timeout: float) -> bool:
        """Wait for its thread; True when that has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def stream_info(self) -> SourceOpened | None:
        """Size, rate and codec; set before the first picture is published."""
        return self._playback.stream_info if self._playback else None

    @property
    def corrupt(self) -> int:
        """Packets that could not be decoded so far."""
        return self._playback.corrupt if self._playback else 0

    @property
    def late(self) -> int:
        """Pictures of a recording dropped so far because decoding was behind."""
        return self._playback.late if self._playback else 0

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
            self._read()
        except SourceError as error:
            # Without its traceback, which would keep the codec alive as long as the error.
            self.error = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # our bugs must not end the relay
            _log.exception(LogEvent.SOURCE_READER_FAILED)
            self.error = SourceLost(f"the reader failed: {type(error).__name__}: {error}")
        finally:
            self.ended.set()
            self._wake.set()

    def _read(self) -> None:
        opened = self._opener.open()
        self.connected_at = self._clock.now()
        self._wake.set()
        playback = self._playback = Playback(
            opened.video,
            clock=self._clock,
            abandoned=self._abandoned,
            publish=lambda i420: self._publish(self, i420),
            open_again=lambda: self._opener.open().video,
        )
        try:
            self._play(opened.kind, playback)
        finally:
            playback.close()

    def _play(self, kind: SourceKind, playback: Playback) -> None:
        if kind is SourceKind.IMAGE:
            show_image(playback)
        elif kind is SourceKind.BURSTS:
            play_paced(playback)
        elif kind.paced:
            play(playback, loop=self._settings.loop)
        else:
            follow(playback)
