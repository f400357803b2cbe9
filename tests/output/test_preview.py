import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relayd.errors import OutputError
from relayd.media.encode import JpegEncoder
from relayd.media.frames import I420, Geometry, SourceFrame, StandbyFrame, SwappedFrame
from relayd.media.slots import LatestSlot
from relayd.output.preview import Preview, SourcePreview
from relayd.output.standby import i420_from_rgb

SIZE = Geometry(64, 48)


def solid(rgb: tuple[int, int, int]) -> I420:
    return i420_from_rgb(np.full((48, 64, 3), rgb, np.uint8))


@pytest.mark.parametrize(
    "rgb",
    [
        (0, 0, 0),
        (255, 255, 255),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (128, 128, 128),
        (200, 150, 120),
    ],
)
@pytest.mark.parametrize("quality", [1, 80, 100])
def test_colours_survive_i420_to_jpeg(rgb: tuple[int, int, int], quality: int) -> None:
    jpeg = JpegEncoder(64, 48, quality).encode(solid(rgb))
    seen = Image.open(io.BytesIO(jpeg)).convert("RGB").getpixel((30, 20))
    assert isinstance(seen, tuple)
    assert max(abs(a - b) for a, b in zip(seen, rgb, strict=True)) <= (4 if quality > 1 else 12)


def test_quality_changes_the_size() -> None:
    noise = i420_from_rgb(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    sizes = [len(JpegEncoder(64, 48, quality).encode(noise)) for quality in (5, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 1.5


def test_one_encoder_serves_many_pictures_of_one_size_only() -> None:
    encoder = JpegEncoder(64, 48)
    assert encoder.encode(solid((255, 0, 0))) == encoder.encode(solid((255, 0, 0)))
    with pytest.raises(OutputError, match="64x48"):
        encoder.encode(np.zeros((24, 16), np.uint8))


class Counted:
    def __init__(self, encoder: JpegEncoder) -> None:
        self.encoder, self.calls = encoder, 0

    def encode(self, picture: I420) -> bytes:
        self.calls += 1
        return self.encoder.encode(picture)


def counted(preview: Any) -> Counted:
    encoder = Counted(preview._jpegs._encoder)
    preview._jpegs._encoder = encoder
    return encoder


def test_nothing_is_encoded_without_viewers() -> None:
    preview = Preview(SIZE)
    encoder = counted(preview)
    for _ in range(10):
        preview.show(SwappedFrame(solid((9, 9, 9)), 0.0))
    assert encoder.calls == 0


def test_each_picture_is_encoded_once_for_any_number_of_viewers() -> None:
    preview = Preview(SIZE, now=iter([0.0, 0.0, 1.0]).__next__)
    encoder = counted(preview)
    for n in range(2):
        preview.show(StandbyFrame(solid((n * 90, 9, 9)), "x"))
        with ThreadPoolExecutor(8) as viewers:
            seen = list(viewers.map(lambda _: preview.latest_jpeg(0), range(16)))
        assert len(set(seen)) == 1
        assert seen[0]
        assert seen[0][0] == n + 1
        assert encoder.calls == n + 1
    assert preview.latest_jpeg(after=2) is None


def test_pictures_above_the_rate_limit_are_dropped() -> None:
    time = [0.0]
    preview = Preview(SIZE, fps_limit=10, now=lambda: time[0])
    for tick in range(200):
        time[0] = tick * 0.05
        preview.show(SwappedFrame(solid((0, 0, 0)), time[0]))
    latest = preview.latest_jpeg()
    assert latest
    assert 95 <= latest[0] <= 101


def test_a_viewer_waits_for_the_next_picture() -> None:
    preview = Preview(SIZE)
    with ThreadPoolExecutor(1) as viewers:
        waiting = viewers.submit(preview.latest_jpeg, 0, 5.0)
        preview.show(SwappedFrame(solid((0, 0, 0)), 0.0))
        seen = waiting.result()
    assert seen
    assert seen[0] == 1
    assert seen[1].startswith(b"\xff\xd8")
    preview.close()
    assert preview.latest_jpeg(0) is None


def test_the_demo_sees_the_source_and_nothing_else_can() -> None:
    slot: LatestSlot[SourceFrame] = LatestSlot()
    preview = SourcePreview(slot, SIZE)
    assert preview.latest_jpeg() is None
    slot.put(SourceFrame(solid((255, 0, 0)), 0.0))
    latest = preview.latest_jpeg()
    assert latest
    assert latest[0] == 1
    assert not hasattr(preview, "show")
