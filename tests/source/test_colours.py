"""Colours are those that the ffmpeg command shows; tests/bench/bench_colour.py prints them all."""

from pathlib import Path

import pytest

from relayd.media.decode import VideoInput
from relayd.media.frames import Geometry
from tests.support.colour import (
    Encoding,
    as_ffmpeg_shows,
    chart,
    difference,
    encode,
    patches,
    shown_by_viewers,
)

VGA, HD = (640, 480), (1280, 720)
WIDE = {"matrix": "2020_ncl", "gamut": "bt2020", "pixel_format": "yuv420p10le"}


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("untagged SD", VGA, "170m", tagged=False),
        Encoding("untagged HD", HD, "bt709", tagged=False),
        Encoding("601 HD", HD, "170m"),
        Encoding("709 full range 10 bit", VGA, full_range=True, pixel_format="yuv420p10le"),
        Encoding("709 12 bit", VGA, pixel_format="yuv420p12le"),
        Encoding("2020", VGA, curve="bt709", **WIDE),  # type: ignore[arg-type]
        Encoding("PQ", VGA, curve="smpte2084", **WIDE),  # type: ignore[arg-type]
        Encoding("HLG", VGA, curve="arib-std-b67", **WIDE),  # type: ignore[arg-type]
    ],
    ids=lambda one: one.name,
)
def test_colours_are_those_of_the_ffmpeg_command(encoding: Encoding, tmp_path: Path) -> None:
    clip = encode(chart(*encoding.size), encoding, tmp_path / "chart.mkv")
    peer = patches(as_ffmpeg_shows(clip, encoding))
    source = VideoInput.open(str(clip), geometry=Geometry(640, 480), fit="stretch")
    try:
        ours = patches(shown_by_viewers(next(source.pictures()).i420()))
    finally:
        source.close()
    far = difference(ours, peer)
    assert far.mean() < 1.0
    # In HDR the lightest patches are dimmed, to leave room for what shines.
    assert far.max() < (5.5 if encoding.is_hdr else 2.2)
