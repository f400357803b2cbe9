"""Which swapped frames may be shown: those of one session, while the source is there.

Frames arrive in the threads of several links; what is shown is decided in the event loop. One
lock makes the look and the act one step, so no late frame slips in behind a decision.
"""

from threading import Lock

from relayd.media.frames import SwappedFrame
from relayd.media.slots import LatestSlot


class FrameGate:
    """Lets frames of one epoch into the slot that the output clock shows; safe from any thread.

    An epoch is a number that is never used again, such as one for each session. When a method
    has returned, no frame that it forbids enters the slot any more; a beat that has already
    taken a frame out of the slot may still show it.
    """

    def __init__(self, slot: LatestSlot[SwappedFrame], *, holds: bool) -> None:
        """Pass nothing yet; with `holds` the last frame stays while nothing passes."""
        self._slot, self._holds = slot, holds
        self._lock = Lock()
        self._epoch: int | None = None
        self._is_frozen = False
        self.passed = 0
        """Frames that passed since the start."""

    @property
    def epoch(self) -> int | None:
        """Whose frames pass; None: nobody's."""
        return self._epoch

    def show(self, epoch: int | None) -> None:
        """From now on only frames of `epoch` pass; with None none do.

        None also forgets the frame that is shown, unless it is held. From one epoch directly to
        the next it stays until the new one's first frame (but no longer than the output clock
        repeats a frame), so that a takeover shows no standby between two live pictures.
        """
        with self._lock:
            self._epoch = epoch
            if epoch is None and not self._holds:
                self._slot.clear()

    def freeze(self) -> None:
        """Pass nothing until `thaw`, for the source is away; forget the frame unless it is held."""
        with self._lock:
            self._is_frozen = True
            if not self._holds:
                self._slot.clear()

    def shut(self) -> None:
        """Pass nothing until the next `show`, and forget the frame even if it is held.

        A call is over: its last picture must not be the first of the next one.
        """
        with self._lock:
            self._epoch = None
            self._slot.clear()

    def thaw(self) -> None:
        """Pass frames of the epoch again, for the source is back."""
        with self._lock:
            self._is_frozen = False

    def put(self, epoch: int, frame: SwappedFrame) -> bool:
        """Offer a frame of `epoch`; True if it passed."""
        with self._lock:
            passes = epoch == self._epoch and not self._is_frozen
            if passes:
                self._slot.put(frame)
                self.passed += 1
            return passes
