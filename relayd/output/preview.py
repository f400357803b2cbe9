"""Preview JPEGs for the web page: encoded once per picture, and only on request."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from relayd.media.encode import JpegEncoder
from relayd.media.frames import I420, Geometry, OutputFrame, SourceFrame
from relayd.media.slots import LatestSlot

QUALITY: Final = 80
"""Of 100: no visible blocks at 640x480, about 40 kB per picture."""


class Preview:
    """An output that keeps the newest picture for the page; encodes nothing without a request."""

    def __init__(
        self,
        geometry: Geometry,
        fps_limit: float = 10.0,
        quality: int = QUALITY,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Offer at most `fps_limit` pictures a second, the same ones to all viewers."""
        self.name = "preview"
        self._period = 1.0 / fps_limit
        self._now = now
        self._due = now()
        self._slot: LatestSlot[OutputFrame] = LatestSlot()
        self._jpegs = _Jpegs(geometry, quality)

    def open(self) -> None:
        """Does nothing."""

    def show(self, frame: OutputFrame) -> None:
        """Keep the picture, or drop it when the last one kept is too recent."""
        now = self._now()
        if now >= self._due:
            self._due = max(self._due, now - self._period) + self._period
            self._slot.put(frame)

    def close(self) -> None:
        """Drop the picture."""
        self._slot.clear()

    def latest_jpeg(self, after: int = 0, timeout: float = 0.0) -> tuple[int, bytes] | None:
        """Return the newest picture's number and JPEG if its number is above `after`, else None.

        Waits up to `timeout` seconds for one, so call it off the event loop.
        """
        number, frame = self._slot.wait_newer(after, timeout)
        return self._jpegs.of(number, frame.i420) if frame is not None else None


class SourcePreview:
    """The source's own pictures for the demo's page.

    It is deliberately not an output: it only returns JPEGs.
    """

    def __init__(
        self, source: LatestSlot[SourceFrame], geometry: Geometry, quality: int = QUALITY
    ) -> None:
        self._slot = source
        self._jpegs = _Jpegs(geometry, quality)

    def latest_jpeg(self, after: int = 0, timeout: float = 0.0) -> tuple[int, bytes] | None:
        """Return the newest picture's number and JPEG if its number is above `after`, else None.

        Waits up to `timeout` seconds for one, so call it off the event loop.
        """
        number, frame = self._slot.wait_newer(after, timeout)
        return self._jpegs.of(number, frame.i420) if frame is not None else None


class _Jpegs:
    """Makes one JPEG per picture, however many requests there are."""

    def __init__(self, geometry: Geometry, quality: int) -> None:
        self._lock = Lock()
        self._encoder = JpegEncoder(geometry.width, geometry.height, quality)
        self._number = 0
        self._jpeg = b""

    def of(self, number: int, picture: I420) -> tuple[int, bytes]:
        """Return the JPEG of this picture, or of a newer one if that was already made."""
        with self._lock:
            if number > self._number:
                self._jpeg = self._encoder.encode(picture)
                self._number = number
            return self._number, self._jpeg
