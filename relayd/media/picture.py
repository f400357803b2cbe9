"""A picture of a source: still coded, or decoded and not yet fitted."""

import zlib
from typing import TYPE_CHECKING, Final, Protocol

from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from relayd.errors import SourceLost
from relayd.media import compat
from relayd.media.frames import I420

if TYPE_CHECKING:
    from av.packet import Packet

LONGEST_REORDERING: Final = 10.0
"""s from decoding to showing a picture; more is a damaged stamp, and would stop all after it."""


class Fitting(Protocol):
    """The input that a picture comes from."""

    is_raw: bool
    """Whether its format has no time stamps at all."""

    def choose_stamp(self, frame: VideoFrame) -> int | None:
        """Return the stamp of the frame that was decoded last, in its own time base."""

    def fit_frame(self, frame: VideoFrame) -> I420:
        """Return a frame fitted to the relay's size."""


class Picture:
    """A decoded picture; fitted only on request, so that a dropped one costs nothing more."""

    __slots__ = ("__weakref__", "_frame", "_input", "_stamp", "duration", "is_key", "pts")

    def __init__(self, source: "Fitting", frame: VideoFrame) -> None:
        self._input = source
        self._frame: VideoFrame | None = frame
        self._stamp = frame.pts
        base = compat.number(frame.time_base)
        stamp = source.choose_stamp(frame)
        self.pts = stamp * base if stamp is not None and base > 0 else None
        """Presentation time in seconds on the stream's own clock; None where it has none."""
        duration = frame.duration if base > 0 and not source.is_raw else 0
        self.duration = duration * base if duration else None
        """Seconds for which it should be shown; None where that is not known."""
        self.is_key = bool(frame.key_frame)
        """Whether it can be decoded without any other."""

    def mark(self) -> tuple[int | None, int]:
        """Return what tells whether this picture, decoded again, is the same one; as `i420`."""
        picture = self.i420()
        return self._stamp, zlib.crc32(picture.data)

    def i420(self) -> I420:
        """Fit the picture to the relay's size; the array is new and belongs to the caller.

        Raises SourceUnusable when no filter can convert it, SourceLost when its input is closed.
        """
        if self._frame is None:
            raise SourceLost("the source was closed")
        return self._input.fit_frame(self._frame)

    def drop(self) -> None:
        """Give its memory back, which may be that of a device."""
        self._frame = None


class CodedPicture:
    """A packet of the video stream, still coded: some kilobytes, where a picture has 460."""

    __slots__ = ("_base", "packet")

    def __init__(self, packet: "Packet[VideoStream]") -> None:
        self.packet = packet
        self._base = compat.number(packet.time_base)

    @property
    def size(self) -> int:
        """Bytes; 0 for the one that ends the stream and makes the decoder hand out its rest."""
        return self.packet.size

    @property
    def is_key(self) -> bool:
        """Whether decoding can start here."""
        return self.packet.is_keyframe

    @property
    def stamp(self) -> float | None:
        """Seconds on the stream's clock: when to decode it, else when to show it, if known."""
        ticks = self.packet.dts if self.packet.dts is not None else self.packet.pts
        return ticks * self._base if ticks is not None and self._base > 0 else None

    def restamp(self, media: float) -> None:
        """Make `media` its stamp, and keep the time from decoding to showing."""
        if self._base <= 0:
            return
        dts = round(media / self._base)
        before = self.packet.dts if self.packet.dts is not None else self.packet.pts
        shown_after = (
            self.packet.pts - before if self.packet.pts is not None and before is not None else 0
        )
        if abs(shown_after) * self._base > LONGEST_REORDERING:
            shown_after = 0
        self.packet.dts, self.packet.pts = dts, dts + shown_after
