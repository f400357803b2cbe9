from typing import cast

import numpy as np
import pytest
from av.video.frame import VideoFrame

from relayd.media import compat
from relayd.media.deinterlace import FieldOrder
from relayd.media.fit import Fitter, StreamFacts
from relayd.media.frames import I420, Geometry


def fitted(frame: VideoFrame, order: FieldOrder) -> I420:
    fitter = Fitter("it", Geometry(640, 480), "crop", codec="rawvideo", field_order=order)
    return fitter.fit(frame, StreamFacts())


@pytest.mark.parametrize("layout", ["rgb24", "bgra", "nv12", "uyvy422", "gray10le", "yuv420p"])
def test_a_still_picture_looks_the_same_interlaced_in_every_pixel_format(layout: str) -> None:
    # The sides are cropped: at the wrong place if the filters expect another layout.
    columns = np.linspace(0, 255, 1920).astype(np.uint8)
    rgb = np.stack([columns, columns[::-1], np.full(1920, 90, np.uint8)], -1)
    picture = VideoFrame.from_ndarray(np.tile(rgb, (1080, 1, 1))).reformat(format=layout)
    plain, interlaced = fitted(picture, ""), fitted(picture, "tff")
    assert np.abs(plain.astype(int) - interlaced).mean() < 1.5


@pytest.mark.parametrize("order", ["", "tff"])
@pytest.mark.parametrize("layout", ["yuv420p", "nv12", "uyvy422", "rgb24"])
def test_tags_of_rare_colours_are_no_reason_to_refuse_a_picture(
    layout: str, order: FieldOrder
) -> None:
    for tags in ("color_trc=log100", "colorspace=ycgco", "color_primaries=film"):
        chain = compat.one_thread_graph()
        nodes = [
            chain.add("color", "size=320x240:color=white"),
            chain.add("format", layout),
            chain.add("setparams", tags),
            chain.add("buffersink"),
        ]
        chain.link_nodes(*nodes).configure()
        picture = cast("VideoFrame", nodes[-1].pull())
        assert fitted(picture, order)[:480].min() > 230
