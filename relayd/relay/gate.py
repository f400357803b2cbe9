"""Decides which swapped frames may be shown: those of one session, while the source is alive.

Frames arrive in the threads of several links; the event loop decides what is shown. One lock makes
check and write atomic, so that no late frame gets through after a decision.
"""

from threading import Lock

from relayd.media.frames import SwappedFrame
from relayd.media.slots import LatestSlot


class FrameGate:
    """Lets frames of one epoch into the slot that the outputs show; safe from any thread.

    An epoch is a number that is never reused, such as one for each session. Once a method has
    returned, no frame that it forbids enters the slot; a tick of the output clock that has
    already taken a frame out of the slot may still show it.
    """

    def __init__(self, slot: LatestSlot[SwappedFrame], *, holds: bool) -> None:
        """Pass nothing yet; with `holds` the last frame stays shown while nothing passes."""
        self._slot, self._holds = slot, holds
        self._lock = Lock()
        self._epoch: int | None = None
        self._is_frozen = False
        self.passed = 0
        """Frames that passed since the start."""

    @property
    def epoch(self) -> int | None:
        """The epoch whose frames pass; None: no frames pass."""
        return self._epoch

    def show(self, epoch: int | None) -> None:
        """Pass only frames of `epoch` from now on; None: pass no frames.

        None also drops the shown frame, unless it is held. From one epoch directly to the next the
        shown frame stays until the new epoch's first one (but no longer than the output clock
        repeats a frame), so that a takeover shows no standby between two live pictures.
        """
        with self._lock:
            self._epoch = epoch
            if epoch is None and not self._holds:
                self._slot.clear()

    def freeze(self) -> None:
        """Pass nothing until `thaw`, as the source is away; drop the frame unless it is held."""
        with self._lock:
            self._is_frozen = True
            if not self._holds:
                self._slot.clear()

    def shut(self) -> None:
        """Pass nothing until the next `show`, and drop the frame even if it is held.

        The call is over: its last picture must not be the first of the next call.
        """
        with self._lock:
            self._epoch = None
            self._slot.clear()

    def thaw(self) -> None:
        """Pass frames of the epoch again, as the source is back."""
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
