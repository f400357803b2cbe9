"""One session's swap engine: newest picture in, swapped picture out, on its own thread.

No queue: while one picture is being swapped, newer ones replace each other in a slot, so the
delay stays bounded even on a slow machine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Generic, Protocol, TypeVar

from relayd import logs
from relayd.logs import LogEvent
from relayd.media.frames import I420
from relayd.media.slots import LatestSlot

Face_contra = TypeVar("Face_contra", contravariant=True)
AnyFace = TypeVar("AnyFace")

_AVERAGE_OVER = 20
"""Pictures averaged for the mean swap time: one second at 20 fps."""


class Swapper(Protocol[Face_contra]):
    """Puts a face onto pictures; used from one thread only."""

    def set_face(self, face: Face_contra) -> None:
        """Use this face from the next picture on."""

    def swap(self, i420: I420) -> tuple[I420, bool]:
        """Return the swapped picture, and whether it had a face."""


Deliver = Callable[[I420, I420, float], None]
"""Takes source picture, swapped picture and the arrival time of the source picture."""


@dataclass(slots=True)
class EngineFigures:
    """The engine's figures so far."""

    frames_in: int = 0
    frames_skipped: int = 0
    """Replaced by a newer one before their turn."""
    frames_swapped: int = 0
    frames_without_face: int = 0
    swap_ms: float = 0.0
    """Mean time of a swap, over about the last second."""


class SwapEngine(Generic[AnyFace]):
    """Runs one swapper on the thread `relayd-swap-NAME` from start() to stop()."""

    def __init__(
        self,
        name: str,
        face: AnyFace,
        make_swapper: Callable[[AnyFace], Swapper[AnyFace]],
        deliver: Deliver,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.figures = EngineFigures()
        self._face = face
        self._make_swapper, self._deliver, self._on_failure = make_swapper, deliver, on_failure
        self._incoming: LatestSlot[tuple[I420, float] | None] = LatestSlot()
        self._new_faces: LatestSlot[AnyFace] = LatestSlot()
        self._stop = Event()
        self._thread = Thread(target=self._run, name=f"relayd-swap-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread; the swapper is created on it."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and join the thread; waits for the current picture."""
        self._stop.set()
        self._incoming.put(None)
        self._thread.join()

    def put(self, picture: I420, received_at: float) -> None:
        """Offer a received picture; from any thread, never waits."""
        self._incoming.put((picture, received_at))

    def set_face(self, face: AnyFace) -> None:
        """Change the face before the next picture; from any thread, never waits."""
        self._new_faces.put(face)

    def _run(self) -> None:
        try:
            self._swap_until_stopped(self._make_swapper(self._face))
        except Exception as fault:  # noqa: BLE001  the session must fail, not hang
            logs.get("emulator").error(LogEvent.EMULATOR_ENGINE_FAILED, exc_info=fault)
            self._on_failure(fault)

    def _swap_until_stopped(self, swapper: Swapper[AnyFace]) -> None:
        seen = face_seen = 0
        while True:
            number, item = self._incoming.wait_newer(seen, timeout=1.0)
            if self._stop.is_set():
                return
            if item is None:
                continue
            face_number, face = self._new_faces.latest()
            if face_number > face_seen and face is not None:
                swapper.set_face(face)
                face_seen = face_number
            picture, received_at = item
            began = time.perf_counter()
            swapped, had_face = swapper.swap(picture)
            self._count(number - seen, had_face=had_face, took=time.perf_counter() - began)
            seen = number
            self._deliver(picture, swapped, received_at)

    def _count(self, numbers: int, *, had_face: bool, took: float) -> None:
        figures = self.figures
        figures.frames_in += numbers
        figures.frames_skipped += numbers - 1
        figures.frames_swapped += had_face
        figures.frames_without_face += not had_face
        done = figures.frames_swapped + figures.frames_without_face
        figures.swap_ms += (took * 1e3 - figures.swap_ms) / min(done, _AVERAGE_OVER)
