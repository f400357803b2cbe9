"""Reads how a picture must be turned from the display matrix that comes with it.

The matrix is a rotation in MP4, EXIF in a photo, an SEI message in H.264 and H.265. PyAV has the
rotation as a number, but not whether the picture is mirrored: that is only in the matrix itself.
"""

from typing import Final

from av.video.frame import VideoFrame

from relayd.media import compat
from relayd.media.graph import Filter, FilterChain, Layout
from relayd.media.orientation import UPRIGHT, Orientation, from_angle, from_matrix

_KINDS_OF_SIDE_DATA: Final = 48
"""More than FFmpeg 9 has (36)."""
_ALL_BUT_THE_MATRIX: Final[tuple[Filter, ...]] = tuple(
    ("sidedata", f"mode=delete:type={kind}")
    for kind in range(_KINDS_OF_SIDE_DATA)
    if kind != compat.DISPLAY_MATRIX
)
"""PyAV cannot access every kind of side data, and the try may crash it (see relayd.media.compat):
so the others are removed, from a copy, before the access."""
_SMALL_COPY: Final[tuple[Filter, ...]] = (
    ("crop", {"w": "min(iw,16)", "h": "min(ih,16)", "x": "0", "y": "0", "exact": "1"}),
    ("copy", ""),
)
"""PyAV keeps a picture whose side data was accessed until the next garbage collection: hundreds of
pictures, or all buffers of a camera, which FFmpeg returns to it though it may be closed."""


class OrientationReader:
    """Reads the orientation of one stream's pictures; used only in the stream's thread.

    Costs 0.1 ms for a key frame and the one after it, nothing for others.
    """

    def __init__(self, *, lasts: bool = False) -> None:
        """`lasts`: one matrix is for all pictures up to the next, as in H.264 and H.265."""
        self._lasts = lasts
        self._latest, self._rotation = UPRIGHT, 0.0
        self._was_key = False
        self._cleaner: FilterChain | None = None

    def read(self, frame: VideoFrame) -> Orientation:
        """Return the orientation that sets `frame` upright. Raises av.error.FFmpegError."""
        is_key, rotation = bool(frame.key_frame), frame.rotation
        # FFmpeg sometimes adds a key frame's matrix to the next picture.
        if is_key or self._was_key or rotation not in (self._rotation, 0):
            found = self._read(frame)
            if found is not None or not self._lasts:
                self._latest, self._rotation = found or UPRIGHT, rotation
        self._was_key = is_key
        return self._latest

    def close(self) -> None:
        """Release the filters."""
        self._cleaner = None

    def _read(self, frame: VideoFrame) -> Orientation | None:
        layout = Layout.of(frame)
        if self._cleaner is None or self._cleaner.layout != layout:
            self._cleaner = FilterChain(layout, _ALL_BUT_THE_MATRIX + _SMALL_COPY)
        copy = self._cleaner.run(frame)
        try:
            matrix = compat.display_matrix(copy)
        except ValueError:  # a kind of side data that is newer than those removed
            return from_angle(frame.rotation)
        return None if matrix is None else from_matrix(matrix)
