"""Write the demo's media: `python -m tests.people.make_media`, about three minutes.

person.mp4 is the person before the camera, the portraits are faces to put on them.
"""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from relayd.emulator.swap.raster import to_i420
from relayd.media.encode import VideoWriter
from tests.people.people import AT_REST, DARIO, LOOP, MIRA, NOOR, Persona, render, render_pose

MEDIA: Final = Path(__file__).parents[2] / "relayd" / "emulator" / "media"

_CLIP_SIZE = (1280, 720)
_RATE = 25.0
"""Frames a second."""
_BITRATE = 950
"""Kbit/s: eleven seconds in 1.3 MB."""
_PORTRAIT_SIZE = (512, 640)
_PORTRAIT_ZOOM = 1.2
"""The head fills four fifths of the height."""
_PORTRAIT_DETAIL = 3.0


def main() -> None:
    """Write all three files again."""
    MEDIA.mkdir(exist_ok=True)
    _write_clip(MIRA, MEDIA / "person.mp4")
    _write_portrait(DARIO, MEDIA / "portrait.png")
    _write_portrait(NOOR, MEDIA / "portrait2.png")


def _write_clip(persona: Persona, path: Path) -> None:
    writer = VideoWriter(str(path), *_CLIP_SIZE, fps=_RATE, bitrate_kbit=_BITRATE)
    try:
        for number in range(round(LOOP * _RATE)):
            writer.write(to_i420(render(persona, number / _RATE, _CLIP_SIZE)))
    finally:
        writer.close()


def _write_portrait(persona: Persona, path: Path) -> None:
    bgr = render_pose(
        persona, AT_REST, 0.0, _PORTRAIT_SIZE, detail=_PORTRAIT_DETAIL, zoom=_PORTRAIT_ZOOM
    )
    Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])).save(path, optimize=True)


if __name__ == "__main__":
    main()
