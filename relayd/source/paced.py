"""Plays a live source that arrives in bursts: evenly, and no later than the bursts need.

Two threads. The connection's own reads packets ahead into a queue; `relayd-source-play` decodes
each shortly before it is due and publishes it then. The queue holds packets, not pictures: 10 s
of 720p are some megabytes coded, and 140 MB decoded to the relay's size.
"""

from collections import deque
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from typing import Final

from relayd import logs
from relayd.errors import SourceError, SourceLost
from relayd.logs import LogEvent
from relayd.media.frames import I420
from relayd.media.picture import CodedPicture, Picture
from relayd.media.playout import AdaptiveBuffer
from relayd.media.skipping import SkipLevel
from relayd.source.hearing import TimedHearing
from relayd.source.playing import Playback, start_playing

LARGEST_QUEUE: Final = 32 * 1024 * 1024
"""Bytes of packets that are read ahead: two segments of 10 s at 12 Mbit/s."""
LONGEST_QUEUE: Final = 60.0
"""s that are read ahead, or two bursts: a sender whose stamps run faster than time must wait, or
its pictures would get older and older."""
PACKET_COST: Final = 1024
"""Bytes that a packet takes besides its content: a million of empty ones are a gigabyte."""
SEGMENT_MARGIN: Final = 0.4
"""s kept beyond a segment's duration: one request for a playlist that came too early, and the
fetching."""
STREAM_MARGIN: Final = 0.05
"""s kept beyond the need of a source that sends no segments."""
LATE: Final = 0.05
"""s after its time at which a picture is left out."""
LONGEST_WITHOUT: Final = 0.25
"""s without a picture after which one is shown, however late."""
VERY_LATE: Final = 1.0
"""s behind after which what comes before the next due key frame is not even decoded."""
_WAKE: Final = 0.1
"""s between checks whether anybody still wants the pictures."""

_log = logs.get("source")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet, when it came, and when it belongs."""

    coded: CodedPicture
    at: float
    """Monotonic s."""
    media: float
    """Its media time, s."""

    @property
    def cost(self) -> int:
        """Bytes of memory that it takes."""
        return self.coded.size + PACKET_COST


class PacketQueue:
    """Packets between the reading and the playing thread, limited by their bytes and length."""

    def __init__(self, limit: int = LARGEST_QUEUE, longest: float = LONGEST_QUEUE) -> None:
        """Hold up to `limit` bytes and `longest` s, and one packet more."""
        self._limit, self._longest, self._bytes = limit, longest, 0
        self._items: deque[Arrival] = deque()
        self._changed = Condition()
        self._is_ended = False

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to `timeout` s; True when a packet may be put."""
        with self._changed:
            return self._changed.wait_for(lambda: self._has_room, timeout)

    @property
    def _has_room(self) -> bool:
        length = self._items[-1].media - self._items[0].media if self._items else 0.0
        return self._bytes < self._limit and length < self._longest

    def put(self, item: Arrival) -> None:
        """Add a packet."""
        with self._changed:
            self._items.append(item)
            self._bytes += item.cost
            self._changed.notify_all()

    def end(self) -> None:
        """Add nothing more."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def take(self, timeout: float) -> Arrival | None:
        """Return the oldest packet; None when there is none within `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_ended, timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._bytes -= item.cost
            self._changed.notify_all()
            return item

    def skip_to_key(self, media: float) -> int:
        """Drop what comes before the last key frame of up to `media`; return the number."""
        with self._changed:
            keys = [
                number
                for number, item in enumerate(self._items)
                if item.coded.is_key and item.media <= media
            ]
            dropped = keys[-1] if keys else 0
            for _ in range(dropped):
                self._bytes -= self._items.popleft().cost
            self._changed.notify_all()
            return dropped

    @property
    def has_ended(self) -> bool:
        """Whether all was taken and nothing more comes."""
        with self._changed:
            return self._is_ended and not self._items


def play_paced(playback: Playback) -> None:
    """Play a live source by its stamps, until it ends (SourceLost) or is abandoned."""
    player = PacedPlayer(playback)
    player.start()
    try:
        for coded in playback.source.coded():
            if not player.read(coded):
                break
        player.finish()
    except SourceError:
        player.finish()  # what has arrived is shown all the same
        raise
    finally:
        player.stop()
    if player.error is not None:
        raise player.error
    if not playback.is_abandoned:
        raise SourceLost("the stream ended")


class PacedPlayer:
    """The playing thread, and what the reading one hands to it."""

    def __init__(self, playback: Playback) -> None:
        self._playback, self._clock = playback, playback.clock
        burst = playback.source.burst
        margin = SEGMENT_MARGIN if burst else STREAM_MARGIN
        self._buffer = AdaptiveBuffer(burst=burst, margin=margin)
        self._lock = Lock()
        """For the buffer, which both threads use."""
        self._queue = PacketQueue(longest=max(LONGEST_QUEUE, 2 * burst))
        self._thread = Thread(target=self._run, name="relayd-source-play", daemon=True)
        self._is_stopped = False
        self._hearing = TimedHearing(playback.publish_sound, playback.clock)
        self._shown: I420 | None = None
        self._shown_media, self._shown_at = float("-inf"), float("-inf")
        self.error: SourceError | None = None
        """Why it ended by itself."""

    def start(self) -> None:
        """Start the thread; only once. Raises SourceUnreachable if none can be started."""
        start_playing(self._thread)
        self._playback.source.hear(self._hearing)

    def read(self, coded: CodedPicture) -> bool:
        """Hand over a packet that has just arrived; waits for room. False when none is wanted."""
        held = not self._queue.wait_for_room(0)
        while not self._queue.wait_for_room(_WAKE):
            if not self._is_wanted:
                return False
        at = self._clock.now()
        media = at
        if coded.size:
            with self._lock:
                media = self._buffer.arrived(coded.stamp, at, held=held)
                self._playback.burst = max(self._buffer.burst, self._playback.source.burst)
            if coded.stamp is not None:
                self._hearing.shift(media - coded.stamp)
            coded.restamp(media)
        self._queue.put(Arrival(coded, at, media))
        return self._is_wanted

    def finish(self) -> None:
        """Wait until everything was shown."""
        with self._lock:
            self._buffer.end()
        self._queue.end()
        while self._thread.is_alive() and self._is_wanted:
            self._thread.join(_WAKE)

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._is_stopped = True
        self._queue.end()
        self._thread.join()
        self._hearing.stop()

    @property
    def _is_wanted(self) -> bool:
        return not self._is_stopped and not self._playback.is_abandoned and self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._play()
        except SourceError as error:
            self.error = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # our bugs must not end the relay
            _log.exception(LogEvent.SOURCE_READER_FAILED)
            self.error = SourceLost(f"the player failed: {type(error).__name__}: {error}")

    def _play(self) -> None:
        source = self._playback.source
        while self._is_wanted and not self._queue.has_ended:
            item = self._queue.take(_WAKE)
            if item is None:
                continue
            for picture in source.decode(item.coded):
                if not self._show(picture, item):
                    return

    def _show(self, picture: Picture, item: Arrival) -> bool:
        """Show a picture when it is due, or leave it out; False when none is wanted any more."""
        media = picture.pts if picture.pts is not None else item.media
        now = self._clock.now()
        with self._lock:
            due = self._buffer.due(media, item.at, now)
            self._playback.buffered = self._buffer.delay
            is_given_up = self._buffer.is_given_up(media)
        self._hearing.note_picture(media, due)
        # What came after its time, or was given up, is no fault of decoding; the rest is.
        self._watch_decoding(0.0 if is_given_up else max(0.0, now - max(due, item.at)), now)
        if self._leaves_out(media, due, now):
            self._playback.late += 1
            return not self._playback.is_abandoned
        if self._shown is not None and not self._playback.show_until(self._shown, due):
            return False
        i420 = picture.i420()
        if not (self._playback.wait_until(due) and self._playback.show(i420)):
            return False
        self._shown, self._shown_media, self._shown_at = i420, media, self._clock.now()
        return True

    def _watch_decoding(self, behind: float, now: float) -> None:
        decoding = self._playback.decoding
        is_leap = behind > VERY_LATE
        level = (decoding.note_left_out if is_leap else decoding.note)(behind, now)
        # Pictures up to a key are left out by the queue, which knows what is due.
        self._playback.source.skip(min(level, SkipLevel.UNREFERENCED))

    def _leaves_out(self, media: float, due: float, now: float) -> bool:
        if media <= self._shown_media:
            return True
        late = now - due
        if late > VERY_LATE:
            self._playback.late += self._queue.skip_to_key(media + late)
        return late > LATE and now - self._shown_at < LONGEST_WITHOUT
