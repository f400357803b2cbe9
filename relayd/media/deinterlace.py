"""Turns interlaced pictures into whole ones, one for each, without holding any back.

FFmpeg's filter `bwdif` shows a picture only when the next one is there, which would delay a live
source by a picture: 40 ms at 25 fps. It wants the next one to see what moves; here it gets the
same picture again, marked as progressive so that the filter passes that copy on unchanged. What
moves is still seen, against the picture before.
"""

from typing import Final, Literal

from av.video.frame import VideoFrame

from relayd.media.graph import FilterChain, Layout

FieldOrder = Literal["", "tff", "bff"]
"""The field that comes first, where the container says so; empty: progressive or unknown."""

_FIELD_ORDERS: Final[dict[int, FieldOrder]] = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}
"""Of FFmpeg's AVFieldOrder: TT, BB, TB, BT. FFmpeg's raw video decoder and its encoders go by the
first letter, too."""
_MARKING_CODECS: Final = frozenset(
    {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3", "dvvideo", "prores"}
)
"""Decoders that mark each interlaced picture; for them the container's word does not count."""


def field_order(codec: str, stated: int) -> FieldOrder:
    """Return the field order that counts for pictures that are not marked themselves.

    `stated` is the container's, as a number of FFmpeg's AVFieldOrder.
    """
    return "" if codec in _MARKING_CODECS else _FIELD_ORDERS.get(stated, "")


class Deinterlacer:
    """Deinterlaces the pictures of one stream, from the first interlaced one on.

    Progressive pictures in between pass unchanged. Used only in the stream's thread.
    """

    def __init__(self, order: FieldOrder = "") -> None:
        """Treat every picture as interlaced in this `order`; if empty, only marked ones."""
        self._order = order
        self._deinterlacer: FilterChain | None = None
        self._copier: FilterChain | None = None

    def whole(self, frame: VideoFrame) -> VideoFrame:
        """Return `frame` without its comb, or itself. Raises av.error.FFmpegError, ValueError."""
        if self._deinterlacer is None and not self._order and not frame.interlaced_frame:
            return frame
        layout = Layout.of(frame)
        is_first = self._deinterlacer is None or self._deinterlacer.layout != layout
        if is_first:
            marks = [("setfield", self._order)] if self._order else []
            filters = [*marks, ("bwdif", "send_frame:auto:interlaced")]
            self._deinterlacer = FilterChain(layout, filters)
            self._copier = FilterChain(layout, [("setfield", "prog")])
        assert self._deinterlacer is not None
        assert self._copier is not None
        self._deinterlacer.push(frame)
        if not is_first:
            self._deinterlacer.pull()  # the copy of the picture before
        return self._deinterlacer.run(self._copier.run(frame))

    def close(self) -> None:
        """Release the filters; a later picture would rebuild them."""
        self._deinterlacer = self._copier = None
