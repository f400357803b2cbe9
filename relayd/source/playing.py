"""The ways to play an open source: follow it live, show a still picture; and what all ways need.

Each runs in the connection's thread until the source ends or the connection is abandoned.
"""

from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from relayd.clock import Clock
from relayd.errors import SourceLost, SourceUnreachable, SourceUnusable, Unavailable
from relayd.media.decode import VideoInput
from relayd.media.frames import I420
from relayd.media.picture import Picture
from relayd.media.skipping import SkipLevel
from relayd.media.sound import SoundFormat
from relayd.process.limits import start_thread
from relayd.sound.blocks import OwnSound
from relayd.source.events import SourceOpened
from relayd.source.hearing import LiveHearing, TimedHearing
from relayd.source.hearing import Publish as PublishSound
from relayd.source.kinds import SourceKind
from relayd.source.schedule import PlaybackSchedule, Timing
from relayd.source.slowness import DecodingWatch, LiveEdge

REFRESH: Final = 0.5
"""s after which a picture that is still current is published again."""


def _unheard(_: OwnSound) -> None:
    """Take sound that nobody wants."""


class Playback:
    """What a way of playing works with: the open source, the clock, and where pictures go."""

    def __init__(
        self,
        source: VideoInput,
        *,
        kind: SourceKind,
        clock: Clock,
        abandoned: Event,
        publish: Callable[[I420], bool],
        open_again: Callable[[], VideoInput],
        publish_sound: PublishSound = _unheard,
    ) -> None:
        """`publish` returns whether the picture was accepted; `open_again` may fail."""
        self.source, self.kind, self.clock = source, kind, clock
        self._abandoned, self._publish, self._open_again = abandoned, publish, open_again
        self.publish_sound = publish_sound
        """Where sound goes, if the source was opened with it."""
        self.late = 0
        """Pictures of a recording dropped because decoding was behind."""
        self.outdated = 0
        """Pictures of a recording dropped because publishing was behind."""
        self.decoding = DecodingWatch()
        """Whether decoding keeps up."""
        self.buffered = 0.0
        """s that pictures wait so that bursts are played evenly."""
        self.burst = 0.0
        """s of pictures that may arrive at once, and then nothing for as long."""
        self._corrupt_before = 0
        self._is_open = True
        self.stream_info: SourceOpened | None = None
        """What was found; set before the first picture is published."""
        self.sound_format: SoundFormat | None = None
        """The sound beside it; None if there is none, or it is not wanted. Set likewise."""

    @property
    def corrupt(self) -> int:
        """Packets that could not be decoded so far."""
        return self._corrupt_before + (self.source.corrupt if self._is_open else 0)

    @property
    def packets(self) -> int:
        """Packets of the video that the open source has delivered."""
        return self.source.packets

    @property
    def key_interval(self) -> float:
        """Longest distance between two key frames that the open source has shown, in s."""
        return self.source.key_interval

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody wants its pictures any more."""
        return self._abandoned.is_set()

    def note_stream(self) -> None:
        """Take down what the stream is; after its first picture, in the decoding thread."""
        if self.stream_info is None:
            # Not earlier: some streams announce their size with the first picture.
            source = self.source
            self.stream_info = SourceOpened(
                source.width, source.height, source.rate, source.codec, self.kind.value
            )
            self.sound_format = source.sound

    def show(self, i420: I420) -> bool:
        """Publish a picture now; False when abandoned."""
        self.note_stream()
        return self._publish(i420)

    def wait_until(self, moment: float) -> bool:
        """Sleep until `moment` on the clock; False when abandoned before it."""
        return not self.clock.sleep_until(moment, self._abandoned)

    def show_until(self, shown: I420, until: float) -> bool:
        """Publish a picture again and again while it is shown for long; False when abandoned."""
        while (again := self.clock.now() + REFRESH) < until:
            if not (self.wait_until(again) and self.show(shown)):
                return False
        return True

    def watch_decoding(self, behind: float, now: float) -> SkipLevel:
        """Leave pictures undecoded if need be, as a recording is so many seconds behind."""
        waiting = self.decoding.is_waiting(self.source.waited, now)
        level = self.decoding.note(behind, now, waiting=waiting)
        self.source.skip(level)
        return level

    def reopen(self) -> VideoInput:
        """Close the source and open it again. Raises SourceError when that fails."""
        self.close()
        self.adopt(self.open_beside())
        return self.source

    def open_beside(self) -> VideoInput:
        """Open the source again, beside the present one; the caller closes or adopts it.

        Raises SourceError when that fails.
        """
        return self._open_again()

    def adopt(self, source: VideoInput) -> None:
        """Go on with another open source; the present one is closed."""
        self.close()
        self.source, self._is_open = source, True

    def close(self) -> None:
        """Close the source, unless it is closed."""
        if self._is_open:
            self._corrupt_before += self.source.corrupt
            self._is_open = False
            self.source.close()


def start_playing(thread: Thread) -> None:
    """Start a thread that plays. Raises SourceUnreachable if no thread can be started."""
    try:
        start_thread(thread)
    except Unavailable as fault:
        raise SourceUnreachable(fault.message, hint=fault.hint) from None


def timing_of(source: VideoInput) -> Timing:
    """Return what a container says about its stamps."""
    return Timing(source.rate, source.length, source.may_jump)


def follow(playback: Playback) -> None:
    """Publish each picture of a live source as it arrives."""
    edge, shown = LiveEdge(), _Shown(playback)
    hearing = LiveHearing(playback.publish_sound, playback.clock)
    playback.source.hear(hearing)
    for picture in playback.source.pictures(shown.refresh):
        now = playback.clock.now()
        waiting = playback.decoding.is_waiting(playback.source.waited, now)
        behind = edge.behind(picture.pts, now, waiting=waiting)
        playback.source.skip(playback.decoding.note(behind, now))
        i420 = picture.i420()
        hearing.note_picture(picture.pts, playback.clock.now())
        if not shown.show(i420):
            return
    raise SourceLost("the stream ended")


class _Shown:
    """The picture that is shown, published again while newer ones are left out."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._shown_at = 0.0
        self.i420: I420 | None = None

    def show(self, i420: I420) -> bool:
        self.i420, self._shown_at = i420, self._playback.clock.now()
        return self._playback.show(i420)

    def refresh(self) -> None:
        """Publish it again, unless that was done a moment ago."""
        if self.i420 is not None and self._playback.clock.now() >= self._shown_at + REFRESH:
            self.show(self.i420)


def play_pipe(playback: Playback) -> None:
    """Publish the pictures of a pipe when each is due, once.

    Those of a slow writer are published as they come: none is left out for being late, as a
    camera that writes into a pipe is a little late now and then.
    """
    source, clock = playback.source, playback.clock
    schedule = PlaybackSchedule(timing_of(source))
    shown = _Shown(playback)
    with TimedHearing(playback.publish_sound, clock) as hearing:
        source.hear(hearing)
        for picture in source.pictures(shown.refresh):
            now = clock.now()
            due = schedule.due(picture.pts, now, picture.duration, is_key=picture.is_key)
            hearing.note_picture(picture.pts, due)
            playback.watch_decoding(schedule.behind(now), now)
            if shown.i420 is not None and not playback.show_until(shown.i420, due):
                return
            i420 = picture.i420()
            if not (playback.wait_until(due) and shown.show(i420)):
                return


def show_image(playback: Playback) -> None:
    """Publish a still picture without end."""
    picture: Picture | None = next(playback.source.pictures(), None)
    if picture is None:
        raise SourceUnusable("the image contains no picture")
    still = picture.i420()
    while playback.show(still):
        if not playback.wait_until(playback.clock.now() + REFRESH):
            return
