"""One connection to a source: opens it and reads it to its end or failure, in its own thread."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from relayd import logs
from relayd.clock import Clock
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable, Unavailable
from relayd.logs import LogEvent
from relayd.media.decode import Picture, VideoInput
from relayd.media.frames import I420, FitMode, Geometry
from relayd.process.limits import start_thread
from relayd.source.events import SourceOpened
from relayd.source.kinds import InputPlan, SourceKind, plan_input
from relayd.source.schedule import PlaybackSchedule

HTTP: Final = {"http", "https"}
OPEN_TIMEOUT: Final = 5.0
"""s for opening, and again for finding the streams."""
REFRESH: Final = 0.5
"""s after which a picture that is still current is published again."""

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
        self._settings, self._geometry, self._fit = settings, geometry, fit
        self._clock, self._wake, self._publish = clock, wake, publish
        self._abandoned = Event()
        self._thread = Thread(target=self._run, name="relayd-source-read", daemon=True)
        self.started_at = clock.now()
        self.connected_at: float | None = None
        """When the container was open."""
        self.first_picture_at: float | None = None
        """When the first picture was published."""
        self.last_picture_at: float | None = None
        """When the newest picture was published."""
        self.stream_info: SourceOpened | None = None
        """Size, rate and codec; set before the first picture is published."""
        self.corrupt = 0
        self.late = 0
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
        settings = self._settings
        plan = plan_input(
            settings.url.reveal(), settings.format, settings.options, settings.stall_timeout
        )
        source = self._open(plan)
        self.connected_at = self._clock.now()
        self._wake.set()
        try:
            kind = plan.kind
            if kind is SourceKind.LIVE and settings.url.scheme in HTTP and source.finite:
                kind = SourceKind.FILE
            if kind is SourceKind.IMAGE:
                self._show_image(source)
            elif kind.paced:
                self._play(source)
            else:
                self._follow(source)
        finally:
            source.close()

    def _open(self, plan: InputPlan) -> VideoInput:
        last_try = len(plan.options) - 1
        for number, options in enumerate(plan.options):
            try:
                return VideoInput.open(
                    plan.url,
                    name=str(self._settings.url),
                    geometry=self._geometry,
                    fit=self._fit,
                    format=plan.demuxer,
                    options=options,
                    low_delay=plan.kind.live,
                    open_timeout=OPEN_TIMEOUT,
                    read_timeout=self._settings.stall_timeout,
                    cancelled=self._abandoned,
                )
            except SourceUnusable:
                if number == last_try or self._abandoned.is_set():
                    raise
        raise AssertionError("a plan has at least one set of options")

    def _follow(self, source: VideoInput) -> None:
        """Publish each picture of a live source as it arrives."""
        for picture in source.pictures():
            self.corrupt = source.corrupt
            i420 = picture.i420()
            self._note_stream_info(source)
            if not self._show(i420):
                return
        raise SourceLost("the stream ended")

    def _play(self, source: VideoInput) -> None:
        """Publish the pictures of a recording when each is due, once or in a loop."""
        schedule = PlaybackSchedule(source.rate)
        while self._play_once(source, schedule) and self._settings.loop:
            if not source.rewind():
                raise SourceLost("the recording ended and cannot be rewound")

    def _play_once(self, source: VideoInput, schedule: PlaybackSchedule) -> bool:
        """Play to the end; False when abandoned before it."""
        shown: I420 | None = None
        for picture in source.pictures():
            self.corrupt = source.corrupt
            due = schedule.due(picture.pts, self._clock.now())
            if shown is not None and not self._keep_fresh(shown, due):
                return False
            if schedule.left_out(self._clock.now()):
                self.late += 1
                continue
            shown = picture.i420()
            self._note_stream_info(source)
            if self._clock.sleep_until(due, self._abandoned) or not self._show(shown):
                return False
        return not self._abandoned.is_set()

    def _show_image(self, source: VideoInput) -> None:
        picture: Picture | None = next(source.pictures(), None)
        if picture is None:
            raise SourceUnusable("the image contains no picture")
        still = picture.i420()
        self._note_stream_info(source)
        while self._show(still):
            if self._clock.sleep_until(self._clock.now() + REFRESH, self._abandoned):
                return

    def _keep_fresh(self, shown: I420, until: float) -> bool:
        """Republish a picture that is shown for long; False when abandoned."""
        while (again := self._clock.now() + REFRESH) < until:
            if self._clock.sleep_until(again, self._abandoned) or not self._show(shown):
                return False
        return True

    def _note_stream_info(self, source: VideoInput) -> None:
        # Not earlier: some streams announce their size with the first picture.
        if self.stream_info is None:
            self.stream_info = SourceOpened(source.width, source.height, source.rate, source.codec)

    def _show(self, i420: I420) -> bool:
        return self._publish(self, i420)
