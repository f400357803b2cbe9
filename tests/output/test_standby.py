import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relayd.errors import ConfigError
from relayd.media.frames import Geometry
from relayd.output.standby import StandbyRenderer, i420_from_rgb

SIZE = Geometry(320, 240)


def solid(rgb: tuple[int, int, int]) -> np.ndarray:
    return np.full((16, 16, 3), rgb, np.uint8)


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [  # the 75 % and 100 % bars of ITU-R BT.601
        ((255, 255, 255), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((255, 0, 0), (81, 90, 240)),
        ((0, 255, 0), (145, 54, 34)),
        ((0, 0, 255), (41, 240, 110)),
        ((191, 191, 0), (162, 44, 142)),
    ],
)
def test_rgb_becomes_bt601_limited(rgb: tuple[int, int, int], yuv: tuple[int, int, int]) -> None:
    i420 = i420_from_rgb(solid(rgb))
    planes = i420[:16], i420[16:20], i420[20:]
    assert i420.shape == (24, 16)
    assert i420.flags.c_contiguous
    for plane, value in zip(planes, yuv, strict=True):
        assert abs(int(plane.min()) - value) <= 1
        assert plane.min() == plane.max()


def test_chroma_is_placed_where_its_pixels_are() -> None:
    rgb = solid((0, 0, 0))
    rgb[:8, 8:] = (255, 0, 0)
    v = i420_from_rgb(rgb)[20:].reshape(8, 8)
    assert v[0, 7] == 240
    assert v[7, 7] == v[0, 0] == 128


@pytest.mark.parametrize("size", [Geometry(640, 480), Geometry(64, 64), Geometry(1280, 720)])
def test_the_picture_is_dark_with_light_text_and_has_the_requested_size(size: Geometry) -> None:
    frame = StandbyRenderer(size).draw("Be right back", "The service does not answer.")
    luma = frame.i420[: size.height]
    assert frame.i420.shape == size.shape
    assert np.median(luma) < 70
    assert luma.max() > 150
    assert frame.text == "Be right back: The service does not answer."


def test_one_text_is_drawn_once_and_other_texts_look_different() -> None:
    renderer = StandbyRenderer(SIZE)
    assert renderer.draw("Starting", "a") is renderer.draw("Starting", "a")
    assert (renderer.draw("Starting", "a").i420 != renderer.draw("Starting", "b").i420).any()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 5000,
        "额度不足 🎥 שלום",
        "a\x00b\x1b[31m\n\r\t",
        "\ud800",
        "word " * 500,
        "\u202e\u0300",
    ],
)
def test_any_text_can_be_drawn_and_stays_inside_the_margins(text: str) -> None:
    frame = StandbyRenderer(SIZE).draw(text, text)
    edge = np.concatenate([frame.i420[: SIZE.height, :12], frame.i420[: SIZE.height, -12:]])
    assert edge.max() < 100
    assert frame.i420[SIZE.height - 4 : SIZE.height].max() < 100


def test_a_users_own_picture_is_fitted_and_used_for_all_texts(tmp_path: Path) -> None:
    path = tmp_path / "own.png"
    Image.new("RGB", (1000, 200), (255, 0, 0)).save(path)
    frame = StandbyRenderer(SIZE, str(path)).draw("Starting", "now")
    assert frame.i420.shape == SIZE.shape
    assert abs(int(frame.i420[100, 100]) - 81) <= 1
    assert "Starting" in frame.text


def test_a_turned_phone_photo_is_shown_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    image = Image.new("RGB", (240, 320), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 120, 320))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    image.save(path, exif=exif)
    luma = StandbyRenderer(SIZE, str(path)).draw("a").i420[: SIZE.height]
    assert luma[20].min() > 200
    assert luma[-20].max() < 40


def png_of_a_bomb() -> bytes:
    """Return a PNG that says it has 900 million pixels; it holds only 64."""
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    png = bytearray(out.getvalue())
    png[16:24] = struct.pack(">II", 30_000, 30_000)  # width and height, of the chunk IHDR
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + b"junk" * 50, "Truncated"),
        (b"<svg/>", "not a picture"),
        (png_of_a_bomb(), "pixels"),
    ],
)
def test_a_hostile_picture_is_a_config_error_with_key_value_and_hint(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "own.png"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        StandbyRenderer(SIZE, str(path))
    message = str(caught.value)
    assert message.startswith(f'privacy.standby_image = "{path}": ')
    assert reason in message
    assert "use a PNG or JPEG file" in message


def test_a_truncated_picture_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "own.jpg"
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="standby_image"):
        StandbyRenderer(SIZE, str(path))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None])
def test_anything_but_a_file_is_a_config_error_and_never_blocks(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    path = tmp_path / "own.png"
    make(path)
    with pytest.raises(ConfigError, match="standby_image"):
        StandbyRenderer(SIZE, str(path))


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "own.png"
    with path.open("wb") as file:
        file.truncate(33 * 1024 * 1024)
    with pytest.raises(ConfigError, match="bytes"):
        StandbyRenderer(SIZE, str(path))
