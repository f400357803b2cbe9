"""How far relayd's colours are from the ffmpeg command's: Delta E (CIE 1976) for each encoding.

    python tests/bench/bench_colour.py

Of each encoding a lossless clip of a colour chart is written. The peer is the ffmpeg command with
zscale, told how to read it; relayd has to find out. "own" is the peer's distance from the chart
itself. About 1 is the smallest difference that people notice.
"""

import tempfile
from pathlib import Path

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

SD, HD = (640, 480), (1280, 720)
DEPTHS = {8: "yuv420p", 10: "yuv420p10le", 12: "yuv420p12le"}


def encodings() -> list[Encoding]:
    """Return what is measured."""
    listed = [
        Encoding("untagged SD (601)", SD, "170m", tagged=False),
        Encoding("untagged HD (709)", HD, "bt709", tagged=False),
        Encoding("untagged HD, 10 bit", HD, "bt709", tagged=False, pixel_format=DEPTHS[10]),
    ]
    for matrix, name, size in (("170m", "601", SD), ("170m", "601 HD", HD), ("bt709", "709", HD),
                               ("bt709", "709 SD", SD)):  # fmt: skip
        listed += [
            Encoding(f"{name} {'full' if full else 'limited'} {depth} bit", size, matrix,
                     full_range=full, pixel_format=pixels)
            for full in (False, True)
            for depth, pixels in DEPTHS.items()
        ]  # fmt: skip
    for depth in (10, 12):
        for full in (False, True):
            listed.append(
                Encoding(f"2020 SDR {'full' if full else 'limited'} {depth} bit", HD, "2020_ncl",
                         gamut="bt2020", full_range=full, pixel_format=DEPTHS[depth])
            )  # fmt: skip
    for curve, name in (("smpte2084", "PQ"), ("arib-std-b67", "HLG")):
        listed += [
            Encoding(f"{name} {'full' if full else 'limited'} {depth} bit", HD, "2020_ncl",
                     gamut="bt2020", curve=curve, full_range=full, pixel_format=DEPTHS[depth])
            for depth in (10, 12)
            for full in (False, True)
        ]  # fmt: skip
    return listed


def measure(encoding: Encoding, folder: Path) -> str:
    """Return a line of the table."""
    picture = chart(*encoding.size)
    clip = encode(picture, encoding, folder / f"{encoding.name.replace(' ', '_')}.mkv")
    peer = patches(as_ffmpeg_shows(clip, encoding))
    source = VideoInput.open(str(clip), geometry=Geometry(640, 480), fit="stretch")
    try:
        ours = patches(shown_by_viewers(next(source.pictures()).i420()))
    finally:
        source.close()
    from_peer, from_chart = difference(ours, peer), difference(ours, patches(picture))
    own = difference(peer, patches(picture))
    return (
        f"{encoding.name:26} {from_peer.mean():6.2f} {from_peer.max():6.2f}"
        f" {from_chart.mean():10.2f} {from_chart.max():6.2f} {own.mean():10.2f} {own.max():6.2f}"
    )


if __name__ == "__main__":
    print(f"{'':26} {'to ffmpeg':>13} {'to the chart':>17} {'own':>17}")
    print(f"{'':26} {'mean':>6} {'max':>6} {'mean':>10} {'max':>6} {'mean':>10} {'max':>6}")
    with tempfile.TemporaryDirectory() as room:
        for one in encodings():
            print(measure(one, Path(room)), flush=True)
