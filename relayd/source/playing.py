"""The ways to play an open source: follow it live, play a recording, show a still picture.

Each runs in the connection's thread until the source ends or the connection is abandoned.
"""

from collections.abc import Callable
from threading import Event
from typing import Final

from relayd.clock import Clock
from relayd.errors import SourceLost, SourceUnusable
from relayd.media.decode import Picture, VideoInput
from relayd.media.frames import I420
from relayd.source.events import SourceOpened
from relayd.source.kinds import SourceKind
from relayd.source.schedule import PlaybackSchedule

REFRESH: Final = 0.5
"""s after which a picture that is still current is published again."""


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
    ) -> None:
        """`publish` returns whether the picture was accepted; `open_again` may fail."""
        self.source, self.kind, self.clock = source, kind, clock
        self._abandoned, self._publish, self._open_again = abandoned, publish, open_again
        self.late = 0
        """Pictures of a recording dropped because decoding was behind."""
        self.buffered = 0.0
        """s that pictures wait so that bursts are played evenly."""
        self.burst = 0.0
        """s of pictures that may arrive at once, and then nothing for as long."""
        self._corrupt_before = 0
        self._is_open = True
        self.stream_info: SourceOpened | None = None
        """What was found; set before the first picture is published."""

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

    def show(self, i420: I420) -> bool:
        """Publish a picture now; False when abandoned."""
        if self.stream_info is None:
            # Not earlier: some streams announce their size with the first picture.
            source = self.source
            self.stream_info = SourceOpened(
                source.width, source.height, source.rate, source.codec, self.kind.value
            )
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

    def reopen(self) -> VideoInput:
        """Close the source and open it again. Raises SourceError when that fails."""
        self.close()
        self.source = self._open_again()
        self._is_open = True
        return self.source

    def close(self) -> None:
        """Close the source, unless it is closed."""
        if self._is_open:
            self._corrupt_before += self.source.corrupt
            self._is_open = False
            self.source.close()


def follow(playback: Playback) -> None:
    """Publish each picture of a live source as it arrives."""
    for picture in playback.source.pictures():
        if not playback.show(picture.i420()):
            return
    raise SourceLost("the stream ended")


def play(playback: Playback, *, loop: bool) -> None:
    """Publish the pictures of a recording when each is due, once or in a loop."""
    schedule = PlaybackSchedule(playback.source.rate)
    while _play_once(playback, schedule) and loop:
        if not playback.source.rewind():
            raise SourceLost("the recording ended and cannot be rewound")


def play_pipe(playback: Playback) -> None:
    """Publish the pictures of a pipe when each is due, once.

    Those of a slow writer are published as they come: none is left out for being late, as a
    camera that writes into a pipe is a little late now and then.
    """
    clock = playback.clock
    schedule = PlaybackSchedule(playback.source.rate)
    shown: I420 | None = None
    for picture in playback.source.pictures():
        due = schedule.due(picture.pts, clock.now())
        if shown is not None and not playback.show_until(shown, due):
            return
        shown = picture.i420()
        if not (playback.wait_until(due) and playback.show(shown)):
            return


def _play_once(playback: Playback, schedule: PlaybackSchedule) -> bool:
    """Play to the end; False when abandoned before it."""
    clock = playback.clock
    shown: I420 | None = None
    for picture in playback.source.pictures():
        due = schedule.due(picture.pts, clock.now())
        if shown is not None and not playback.show_until(shown, due):
            return False
        if schedule.left_out(clock.now()):
            playback.late += 1
            continue
        shown = picture.i420()
        if not (playback.wait_until(due) and playback.show(shown)):
            return False
    return not playback.is_abandoned


def show_image(playback: Playback) -> None:
    """Publish a still picture without end."""
    picture: Picture | None = next(playback.source.pictures(), None)
    if picture is None:
        raise SourceUnusable("the image contains no picture")
    still = picture.i420()
    while playback.show(still):
        if not playback.wait_until(playback.clock.now() + REFRESH):
            return
