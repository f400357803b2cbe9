"""Which of a picture's two time stamps to believe."""

from typing import Final

_NONE_YET: Final = float("-inf")


class StampChooser:
    """Chooses between presentation and decoding stamps, as FFmpeg's `best_effort_timestamp` does.

    PyAV does not hand that one out. Containers without presentation stamps, such as AVI, have
    them guessed by FFmpeg; with B-frames those run back and forth, while the decoding stamps of
    the pictures, as they leave the decoder, rise. So whichever failed to rise less often counts.
    """

    def __init__(self) -> None:
        self._pts_faults = self._dts_faults = 0
        self._last_pts = self._last_dts = _NONE_YET

    def choose(self, pts: int | None, dts: int | None) -> int | None:
        """Return the stamp of the next picture, in the unit of its stamps; None without a good one.

        The last pictures of a file leave the decoder without a stamp of decoding.
        """
        if dts is not None:
            self._dts_faults += dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._pts_faults += pts <= self._last_pts
            self._last_pts = pts
        return pts if pts is not None and self._pts_faults <= self._dts_faults else dts

    def restart(self) -> None:
        """Begin again from the start of the same stream; what was learnt about it stays."""
        self._last_pts = self._last_dts = _NONE_YET
