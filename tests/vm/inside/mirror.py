"""Runs in the guest: an RTC worker whose service is a mirror, as late as a test says.

Encoding, RTC and a swap take an emulated processor whole, so that what is left of the relay is
late by its want of time, not by the service. This one gives each picture back as it was sent, as
many seconds later as the file DELAY says now.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from relayd.media.frames import I420
from relayd.rtc import worker
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkKind, LinkTarget
from relayd.sound.blocks import Samples

DELAY = Path("/run/relayd/mirror")
"""Where it is, the nursery lets this be the worker."""
_REST = 0.05
"""s between two looks for a picture; any is late by more."""


class Mirror:
    """A link to nobody."""

    def __init__(
        self,
        _target: LinkTarget,
        on_picture: Callable[[I420, float], None],
        on_event: Callable[[LinkEvent], None],
        _on_sound: Callable[[Samples, float], None] | None = None,
    ) -> None:
        self._on_picture, self._on_event = on_picture, on_event
        self._waiting: deque[tuple[float, I420]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror")

    def join(self) -> None:
        """Be joined at once."""
        self._on_event(LinkEvent(LinkEventKind.JOINED))
        self._thread.start()

    def publish(self, picture: I420, captured_at: float) -> None:
        """Take a picture."""
        del captured_at
        self._waiting.append((time.monotonic() + float(DELAY.read_text()), picture.copy()))

    def publish_sound(self, samples: Samples, at: float) -> None:
        """Does nothing."""

    def renew(self, token: str) -> None:
        """Does nothing."""

    def leave(self, deadline: float) -> None:
        """End."""
        self._stop.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._on_event(LinkEvent(LinkEventKind.LEFT))

    def _run(self) -> None:
        has_begun = False
        while not self._stop.wait(self._until_next()):
            if not self._waiting or self._waiting[0][0] > time.monotonic():
                continue
            if not has_begun:
                self._on_event(LinkEvent(LinkEventKind.PUBLISHING))
                self._on_event(LinkEvent(LinkEventKind.FIRST_PICTURE))
                has_begun = True
            self._on_picture(self._waiting.popleft()[1], time.monotonic())

    def _until_next(self) -> float:
        if not self._waiting:
            return _REST
        return max(0.0, self._waiting[0][0] - time.monotonic())


def load_link(_kind: LinkKind, _engine: str = "auto") -> type[Mirror]:
    """Take the mirror instead of a library."""
    return Mirror


if __name__ == "__main__":
    worker.load_link = load_link  # type: ignore[attr-defined,assignment]  # the mirror instead
    worker.main()
