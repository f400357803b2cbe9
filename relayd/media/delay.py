"""Glass-to-glass delay, measured only from the pictures.

Neither the service nor the transport preserves a capture time, and a swapped frame does not
carry the number of its source frame. But it looks like that frame: background, hair, shoulders
and pose are the same. So a thumbnail of each sent frame is kept for some seconds, each swapped
frame is compared with all of them, and the matching one shows when it was captured. If no match
stands out (a still scene, a loop shorter than the window) the delay is unknown, and nothing is
measured.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from relayd.media.frames import I420, SourceFrame, SwappedFrame, luma

Thumbnail = NDArray[np.float32]
"""float32, shape (cells,): luma of a grid of cells, its mean removed."""

WINDOW = 3.0
"""s of sent frames that are kept: far above any delay that is usable in a call."""
REMEMBERED = 60.0
"""s of measurements in `spread` if all frames can be matched; otherwise longer."""

_ROWS, _COLUMNS = 30, 40
_EVENLY = np.full(_ROWS * _COLUMNS, 1 / (_ROWS * _COLUMNS), np.float32)
_OUTLIER = 8.0
"""Most luma levels that one cell may count for, so that a swapped face weighs no more than
the background that distinguishes the frames."""
_CLEAR = 0.08
"""How much nearer the match must be than any other frame, as a share of the difference between
the two frames. Behind a VP8 encoder at 1.5 Mbit/s and with sensor noise, wrong matches reach
0.045 (still scenes); right ones have their median at 0.09 to 0.24 while a head moves."""
_FEWEST = 4
"""Sent frames needed before a match can stand out."""
_AGREE = 0.15
"""s by which two matches in a row may differ. Chance matches differ by more; a true delay that
jumps (a reconnect) costs one measurement."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a measured quantity in seconds; None before the first measurement."""

    p50: float | None = None
    p95: float | None = None
    count: int = 0


class DelayMeter:
    """Compares what is shown with what was sent; each method may be called in any thread.

    A frame is measured from when it was first sent to when it is first shown: repeats by a slow
    source, the pacer or an output are not measured again.
    """

    def __init__(
        self, fps: float = 20.0, on_measure: Callable[[float], None] | None = None
    ) -> None:
        """Measure a stream of `fps`; `shown` calls `on_measure` with each delay in seconds."""
        capacity = max(_FEWEST, math.ceil(WINDOW * fps))
        self._on_measure = on_measure
        self._lock = Lock()
        self._thumbnails = np.zeros((capacity, _ROWS * _COLUMNS), np.float32)
        self._scratch = np.empty_like(self._thumbnails)
        self._captured = np.full(capacity, math.inf)
        self._sent = 0
        self._shown_last = -math.inf
        self._matched_last = -math.inf
        self._matched_delay = math.inf
        self._delays: deque[float] = deque(maxlen=math.ceil(REMEMBERED * fps))

    def sent(self, frame: SourceFrame) -> None:
        """Record a frame that is passed to the transport."""
        newest = (self._sent - 1) % len(self._captured)
        if self._captured[newest] == frame.captured_at:
            return
        picture = thumbnail(frame.i420)
        with self._lock:
            if self._sent and np.array_equal(self._thumbnails[newest], picture):
                return
            place = self._sent % len(self._captured)
            self._thumbnails[place] = picture
            self._captured[place] = frame.captured_at
            self._sent += 1

    def shown(self, frame: SwappedFrame, at: float) -> None:
        """Measure a frame that an output shows at `at`, monotonic seconds."""
        if frame.received_at == self._shown_last:
            return
        self._shown_last = frame.received_at
        picture = thumbnail(frame.i420)
        with self._lock:
            captured = self._match(picture)
            if captured is None or not self._matched_last < captured <= at:
                return
            delay, before = at - captured, self._matched_delay
            self._matched_last, self._matched_delay = captured, delay
            if abs(delay - before) > _AGREE:
                return
            self._delays.append(delay)
        if self._on_measure is not None:
            self._on_measure(delay)

    def spread(self) -> Spread:
        """Return the distribution of the last measurements."""
        with self._lock:
            delays = list(self._delays)
        if not delays:
            return Spread()
        p50, p95 = np.percentile(delays, (50, 95))
        return Spread(float(p50), float(p95), len(delays))

    def _match(self, picture: Thumbnail) -> float | None:
        """Return when the sent frame that looks like `picture` was captured; None if unclear.

        The distance is a metric, so a picture can be nearer to one frame than to another by at
        most the distance of these two: the share of that measures the certainty.
        """
        kept = min(self._sent, len(self._captured))
        if kept < _FEWEST:
            return None
        distances = self._distances(kept, picture)
        best = int(distances.argmin())
        if self._captured[best] == self._captured[:kept].min():
            return None  # a frame older than the window matches its oldest frame
        differences = self._distances(kept, self._thumbnails[best])
        others = np.arange(kept) != best
        if np.any(distances[others] - distances[best] < _CLEAR * differences[others]):
            return None
        return float(self._captured[best]) if differences[others].min() > 0 else None

    def _distances(self, kept: int, picture: Thumbnail) -> Thumbnail:
        """Return the mean absolute difference to each kept frame, limited for each cell."""
        differences = self._scratch[:kept]
        np.subtract(self._thumbnails[:kept], picture, out=differences)
        np.abs(differences, out=differences)
        np.minimum(differences, np.float32(_OUTLIER), out=differences)
        means: Thumbnail = differences @ _EVENLY
        return means


def thumbnail(i420: I420) -> Thumbnail:
    """Average the luma over a grid of cells and remove its mean (a brighter picture matches).

    Pictures must be at least 40x30; incomplete cells at the right and lower edge are left out.
    """
    picture = luma(i420)
    cell_height, cell_width = picture.shape[0] // _ROWS, picture.shape[1] // _COLUMNS
    rows = picture[: _ROWS * cell_height, : _COLUMNS * cell_width]
    # Summing whole rows first takes half the time of a mean over both axes.
    strips = rows.reshape(_ROWS, cell_height, -1).sum(1, dtype=np.uint32)
    sums = strips.reshape(_ROWS * _COLUMNS, cell_width).sum(1, dtype=np.uint32)
    means = sums.astype(np.float32) / np.float32(cell_height * cell_width)
    centred: Thumbnail = means - means.mean()
    return centred
