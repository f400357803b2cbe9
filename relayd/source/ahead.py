"""Shows pictures when they are due, in a thread of its own, while the next ones are decoded."""

from collections import deque
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final, Self

from relayd.media.frames import I420
from relayd.source.playing import REFRESH, Playback, start_playing

AHEAD: Final = 0.5
"""s by which pictures are decoded before they are due: a loop point, even one that opens the file
or connection again, takes less on most days."""
AHEAD_BYTES: Final = 32 * 2**20
"""Bytes of decoded pictures in memory: half a second at 640x480, 0.3 s at 1080p30."""

LATE: Final = 0.1
"""s after which a picture is left out for the next one."""


class AheadOfTime:
    """A queue of decoded pictures, each with the time at which it is due; a context manager.

    `put` and `hold` are for the decoding thread.
    """

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._queue: SimpleQueue[tuple[float, I420 | None] | None] = SimpleQueue()
        self._dues: deque[float] = deque()
        self._holds = Event()
        self._thread = Thread(target=self._run, name="relayd-source-show", daemon=True)

    def __enter__(self) -> Self:
        start_playing(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        """Show what is left, unless abandoned, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def put(self, i420: I420, due: float, *, stays: bool = False) -> bool:
        """Have a picture shown at `due`; returns when the next may be decoded.

        One that `stays` is kept fresh until the next comes, as those between are left out.
        False when the pictures are not wanted any more.
        """
        self._playback.note_stream()  # before another thread shows it, and the next round begins
        if stays:
            self._holds.set()
        else:
            self._holds.clear()
        self._queue.put((due, i420))
        self._dues.append(due)
        moment = due - AHEAD
        if len(self._dues) > max(1, AHEAD_BYTES // i420.nbytes):
            moment = max(moment, self._dues.popleft())
        return self._playback.wait_until(moment)

    def hold(self, until: float) -> bool:
        """Keep the last picture until the next `put`, at least until `until`.

        Returns shortly before that time, so that the next one can be decoded; False when the
        pictures are not wanted any more.
        """
        self._holds.set()
        self._queue.put((until, None))
        return self._playback.wait_until(until - AHEAD)

    def _run(self) -> None:
        shown: I420 | None = None
        while (item := self._next_item(shown)) is not None:
            due, i420 = item
            if shown is not None and not self._playback.show_until(shown, due):
                return
            if not self._playback.wait_until(due):
                return
            if i420 is None or self._is_outdated(due):
                continue
            shown = i420
            if not self._playback.show(shown):
                return

    def _is_outdated(self, due: float) -> bool:
        """Whether to leave a picture out, since publishing was held up and the next is here."""
        late = self._playback.clock.now() > due + LATE and not self._queue.empty()
        self._playback.outdated += late
        return late

    def _next_item(self, shown: I420 | None) -> tuple[float, I420 | None] | None:
        """Wait for the next picture, and keep the present one fresh while it is held."""
        while True:
            try:
                return self._queue.get(timeout=REFRESH)
            except Empty:
                if self._playback.is_abandoned:
                    return None
            if self._holds.is_set() and shown is not None and not self._playback.show(shown):
                return None
