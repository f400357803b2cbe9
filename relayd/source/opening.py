"""Opens a source: tries the ways that its plan names, looks what is there, and says what it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Final

from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceUnreachable, SourceUnusable
from relayd.media.decode import VideoInput
from relayd.media.feed import ByteFeed
from relayd.media.frames import FitMode, Geometry
from relayd.media.hls import NO_SEGMENTS, HlsFiles, is_hls
from relayd.media.interrupt import UNLIMITED, TimeLimit
from relayd.media.orientation import UPRIGHT, Orientation
from relayd.media.refusals import NOTHING_ARRIVES
from relayd.media.sniff import PictureBytes, found_nothing, look_inside, was_answered
from relayd.media.streams import StreamWish
from relayd.media.url_refusals import LISTENING
from relayd.source.addresses import is_local, path_of, scheme_of
from relayd.source.camera_mode import ModeRequest
from relayd.source.capture import CaptureDevice
from relayd.source.kinds import (
    HTTP,
    SourceKind,
    as_wanted,
    is_unread_multipart,
    may_be_polled,
    settle,
)
from relayd.source.limits import SourceLimits
from relayd.source.pipes import Pipe, open_feed
from relayd.source.plans import MJPEG_PROBE, InputPlan, is_piped, plan_input

_WORTH_A_TRY: Final = 1.0
"""s that must be left of `open_timeout` for another attempt."""


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source, and what opening it has shown."""

    video: VideoInput
    kind: SourceKind
    may_be_polled: bool
    """Whether the next request may bring another picture, if this answer ends after one."""
    path: str | None
    """The path of a local recording; None for anything else."""


@dataclass(frozen=True, slots=True)
class _Opening:
    """One opening: how, for whom, and until when."""

    plan: InputPlan
    name: str
    geometry: Geometry
    fit: FitMode
    turn: Orientation
    stream: StreamWish
    deadline: float
    """On time.monotonic(), which FFmpeg's own limits go by as well."""
    read_limit: Callable[[], float]
    cancelled: Event
    is_hls: bool
    with_sound: bool

    def open(
        self, options: dict[str, str], *, demuxer: str = "", feed: ByteFeed | None = None
    ) -> VideoInput:
        """Open with one set of options. Raises SourceError."""
        return VideoInput.open(
            self.plan.url,
            name=self.name,
            geometry=self.geometry,
            fit=self.fit,
            turn=self.turn,
            stream=self.stream,
            format=demuxer or self.plan.demuxer,
            options=options | (NO_SEGMENTS if self.is_foreign else {}),
            low_delay=self.plan.kind.live,
            with_sound=self.with_sound,
            # A pipe's header may take as long as its writer does: it cannot be read twice.
            open_timeout=TimeLimit(self.time_left) if feed is None else UNLIMITED,
            read_timeout=TimeLimit(self.read_limit),
            cancelled=self.cancelled,
            feed=feed,
            files=self._hls_files(options) if self.is_hls and feed is None else None,
        )

    @property
    def is_foreign(self) -> bool:
        """Whether FFmpeg is to find out what an HTTP server sends."""
        return scheme_of(self.plan.url) in HTTP and not self.plan.demuxer and not self.is_hls

    def _hls_files(self, options: dict[str, str]) -> HlsFiles:
        return HlsFiles(
            self.plan.url,
            self.name,
            options,
            self.geometry,
            timeout=max(_WORTH_A_TRY, self.time_left()),
            cancelled=self.cancelled,
        )

    def time_left(self) -> float:
        """Return the s until the deadline; negative after it."""
        return self.deadline - time.monotonic()

    @property
    def has_time(self) -> bool:
        """Whether another attempt makes sense."""
        return self.time_left() > _WORTH_A_TRY and not self.cancelled.is_set()

    def may_depend_on_options(self, fault: SourceError) -> bool:
        """Whether other options may help."""
        if scheme_of(self.plan.url) == "rtsp":
            return was_answered(fault)
        return isinstance(fault, SourceUnusable) and found_nothing(fault)


class SourceOpener:
    """Opens one source, again and again, and remembers what worked."""

    def __init__(
        self,
        settings: SourceSettings,
        geometry: Geometry,
        fit: FitMode,
        limits: SourceLimits,
        *,
        turn: Orientation = UPRIGHT,
        fps: float,
        with_sound: bool = False,
    ) -> None:
        """`geometry` and `fps` are the relay's."""
        self._with_sound = with_sound
        self._settings, self._geometry, self._fit, self._turn = settings, geometry, fit, turn
        self._request = ModeRequest(geometry, fps, settings.options)
        self.device: CaptureDevice | None = None
        """The capture device that was opened last, if the source is one."""
        self._limits = limits
        self._name = str(settings.url)
        self._pipe: Pipe | None = None
        self._worked = 0
        """Number of the set of options that worked last."""
        self._looks_inside = False
        """Whether it was FFmpeg's bare bytes that worked last."""
        self._is_hls = False
        """Whether it has turned out to be HLS, whatever its address says."""

    @property
    def is_pipe(self) -> bool:
        """Whether it is a pipe: nothing that was read of it comes again."""
        return self._pipe is not None

    def open(self, cancelled: Event, read_limit: Callable[[], float]) -> OpenedSource:
        """Open the source; the caller closes it.

        `read_limit` returns how long a read may take, in seconds. `cancelled` ends what can be
        ended early. Raises SourceError when it cannot be opened, or not in time.
        """
        plan = self._completed(plan_input(self._settings))
        deadline = time.monotonic() + self._limits.open
        opening = _Opening(
            plan,
            self._name,
            self._geometry,
            self._fit,
            self._turn,
            self._settings.stream,
            deadline,
            read_limit,
            cancelled,
            is_hls=self._is_hls or is_hls(plan.url, plan.demuxer),
            with_sound=self._with_sound,
        )
        is_from_pipe = is_piped(plan.url)
        if not is_from_pipe:  # any more
            self.close()
        video = self._open_pipe(opening) if is_from_pipe else self._open_in_time(opening)
        try:
            return _judged(video, plan)
        except BaseException:
            video.close()
            raise

    def distrust(self) -> None:
        """Try other options first next time: nothing came with those that opened it."""
        self._worked += 1

    def explained(self, error: SourceError) -> SourceError:
        """Return the error to report for one that opening or reading raised."""
        return self.device.explained(error) if self.device else error

    def _completed(self, plan: InputPlan) -> InputPlan:
        """Complete the plan of a capture device: with the modes that it has."""
        self.device = None
        if plan.kind is not SourceKind.DEVICE:
            return plan
        self.device = CaptureDevice(plan.url, self._name)
        return replace(plan, options=tuple(self.device.options(self._request)))

    def close(self) -> None:
        """Close what is kept from one connection to the next."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _open_pipe(self, opening: _Opening) -> VideoInput:
        if self._pipe is None:
            self._pipe = Pipe(opening.plan.url, self._name)
        feed = open_feed(
            self._pipe,
            self._name,
            cancelled=opening.cancelled,
            limit=self._limits.open,
            is_late=lambda: opening.time_left() <= 0,
        )
        return opening.open(opening.plan.options[0], feed=feed)

    def _open_in_time(self, opening: _Opening) -> VideoInput:
        try:
            return self._open_url(opening)
        except SourceError as fault:
            if opening.time_left() > 0 or not fault.retryable or opening.cancelled.is_set():
                raise
            # FFmpeg calls what was ended at the limit invalid data, among other things.
            raise too_slow(self._name, self._limits.open) from None

    def _open_url(self, opening: _Opening) -> VideoInput:
        if self._looks_inside:
            self._looks_inside = False  # unless it works again
            if (video := self._open_answer(opening)) is not None:
                return video
        try:
            video = self._try_options(opening)
        except SourceError as fault:
            is_odd = was_answered(fault) or found_nothing(fault)
            if not (opening.is_foreign and is_odd and opening.has_time):
                raise
            if (answer := self._open_answer(opening)) is None:
                raise
            return answer
        if opening.is_foreign and is_unread_multipart(video.look(), video.width):
            video.close()
            if (answer := self._open_answer(opening)) is None:
                raise SourceUnreachable(f"{self._name}: its parts are no JPEG pictures")
            return answer
        return video

    def _try_options(self, opening: _Opening) -> VideoInput:
        """Try each set of options, the one that worked last time first."""
        sets = opening.plan.options
        first = self._worked % len(sets)
        faults: list[SourceError] = []
        for number in sorted(range(len(sets)), key=lambda number: number != first):
            try:
                video = opening.open(sets[number])
            except SourceError as fault:
                faults.append(fault)
                if not (opening.has_time and self._may_depend_on_options(opening, fault)):
                    break
            else:
                self._worked = number
                return video
        # The simplest mode of a capture device says best what is wrong with it.
        raise faults[-1 if opening.plan.kind is SourceKind.DEVICE else 0]

    def _may_depend_on_options(self, opening: _Opening, fault: SourceError) -> bool:
        if self.device is not None:
            return self.device.wants_another_mode(fault)
        return opening.may_depend_on_options(fault)

    def _open_answer(self, opening: _Opening) -> VideoInput | None:
        """Open what FFmpeg did not recognise over HTTP; None if there is no picture in it."""
        limit, options = TimeLimit(opening.time_left), opening.plan.options[0]
        answer = look_inside(opening.plan.url, options, timeout=(limit, limit))
        if answer is None or opening.cancelled.is_set():
            return None
        if answer.is_playlist and not opening.is_hls:
            self._is_hls = True
            return replace(opening, is_hls=True).open(options)
        video = None
        if answer.is_picture:
            video = opening.open(options, feed=PictureBytes(answer.content, self._name))
        elif answer.has_jpeg:
            video = opening.open(options | MJPEG_PROBE, demuxer="mjpeg")
        self._looks_inside = video is not None
        return video


def _judged(video: VideoInput, plan: InputPlan) -> OpenedSource:
    """Return an open source with its kind, prepared to be decoded as that needs."""
    scheme, found = scheme_of(plan.url), video.look()
    decide = as_wanted if plan.is_settled else partial(settle, scheme=scheme)
    kind = decide(plan.kind, found=found)
    video.decode_for(live=kind.live or kind is SourceKind.PIPE)
    is_file = kind is SourceKind.FILE and is_local(plan.url)
    path = path_of(plan.url) if is_file else None
    return OpenedSource(video, kind, may_be_polled(scheme, found), path)


def too_slow(name: str, limit: float) -> SourceError:
    """Return the error of a source that could not be opened within `limit` seconds."""
    what = f"{name}: could not be opened within {limit:g} s"
    if scheme_of(name) in LISTENING:
        return SourceUnreachable(f"{what}: nothing arrives there", hint=NOTHING_ARRIVES)
    return SourceUnreachable(what, hint="see [source] open_timeout")
