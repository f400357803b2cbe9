"""Inputs opened for a test and closed after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relayd.media.decode import VideoInput
from relayd.media.frames import FitMode, Geometry

VGA = Geometry(640, 480)


@contextmanager
def opened(
    url: Path | str, *, geometry: Geometry = VGA, fit: FitMode = "stretch", **how: Any
) -> Iterator[VideoInput]:
    source = VideoInput.open(str(url), geometry=geometry, fit=fit, **how)
    try:
        yield source
    finally:
        source.close()
