"""Runs in the guest: one program that watches a camera and records a microphone, as OBS does.

    lip_sync.py DEVICE WIDTH LEFT TOP SIDE RECORDER…

The lamp is a square in pictures of this width. RECORDER… is a command that writes 48 kHz mono s16
to stdout. Each line on stdin ends a chapter: then it tells, as one JSON object, when the lamp lit
and when a beep began in it, in seconds of one clock, and how many pictures came. A picture is seen
when it is read; a sample is heard as much before its piece is read as the rest of the piece lasts.
Only the standard library: it starts in 1 s.
"""

import array
import json
import subprocess
import sys
import threading
import time
from select import POLLIN, poll

from reader import Stream  # type: ignore[import-not-found]  # it is beside this file

RATE = 48000
PIECE = 480
"""Samples that are read at once."""
LOUD = 3000
"""Amplitude that only a beep has."""
QUIET = 0.5
"""s of quiet before a beep."""
BRIGHT = 120
"""Luma; the lamp has 33 when it is off and 235 when it is on."""
EDGE, STEP = 6, 4
"""Pixels of the lamp's edge that are not looked at; each fourth row of the rest is."""


class Camera:
    """When the lamp lit."""

    def __init__(self, device: str, width: int, left: int, top: int, side: int) -> None:
        self._stream = Stream(device, 4)
        rows = range(top + EDGE, top + side - EDGE, STEP)
        self._places = [
            slice(y * width + left + EDGE, y * width + left + side - EDGE) for y in rows
        ]
        self._was_lit = True
        self.lights: list[float] = []
        self.pictures = 0

    def watch(self) -> None:
        """Watch for ever."""
        waiting = poll()
        waiting.register(self._stream.fd, POLLIN)
        while waiting.poll():
            _, luma = self._stream.take(self._luma)
            self.pictures += 1
            if luma > BRIGHT and not self._was_lit:
                self.lights.append(time.monotonic())
            self._was_lit = luma > BRIGHT

    def _luma(self, picture: memoryview) -> float:
        rows = [bytes(picture[place]) for place in self._places]
        return sum(map(sum, rows)) / sum(map(len, rows))


class Microphone:
    """When beeps began."""

    def __init__(self, recorder: list[str]) -> None:
        self._program = subprocess.Popen(recorder, stdout=subprocess.PIPE)
        self._loud_at = 0.0
        self.beeps: list[float] = []

    def listen(self) -> None:
        """Listen until the recorder ends."""
        assert self._program.stdout is not None
        while data := self._program.stdout.read(2 * PIECE):
            ends = time.monotonic()
            samples = array.array("h", data)
            if max(samples) < LOUD:
                continue
            first = next(place for place, sample in enumerate(samples) if sample >= LOUD)
            at = ends - (len(samples) - first) / RATE
            if at - self._loud_at > QUIET:
                self.beeps.append(at)
            self._loud_at = ends


def main() -> None:
    """Watch and listen until stdin ends."""
    device, *place = sys.argv[1:6]
    camera = Camera(device, *map(int, place))
    microphone = Microphone(sys.argv[6:])
    for work in (camera.watch, microphone.listen):
        threading.Thread(target=work, daemon=True).start()
    print("lip sync ready", flush=True)  # noqa: T201 - this is how it tells
    for _ in sys.stdin:
        told = {"lights": camera.lights, "beeps": microphone.beeps, "pictures": camera.pictures}
        print(json.dumps(told), flush=True)  # noqa: T201 - the same
        camera.lights, microphone.beeps, camera.pictures = [], [], 0


if __name__ == "__main__":
    main()
