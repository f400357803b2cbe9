import gc
import inspect
import resource
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.media.decode import VideoInput
from relayd.media.decoder import thread_count
from relayd.media.frames import I420
from tests.support.inputs import VGA, opened

if TYPE_CHECKING:
    from tests.support.clips import Clips

UPRIGHT = ["red", "green", "blue", "white"]


def first_picture(url: Path | str, **how: Any) -> I420:
    with opened(url, **how) as source:
        picture = next(source.pictures()).i420()
    assert picture.shape == VGA.shape
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    return picture


def test_a_picture_is_upright_with_correct_colours(clips: "Clips") -> None:
    clip = clips.quadrants("plain.mp4", 1280, 720)
    assert clips.corners(first_picture(clip)) == UPRIGHT


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), ["blue", "red", "white", "green"]),  # a phone held upright
        ((0, -1, 1, 0), ["green", "white", "red", "blue"]),
        ((-1, 0, 0, -1), ["white", "blue", "green", "red"]),
        ((1, 0, 0, 1), UPRIGHT),
    ],
)
def test_a_clip_is_rotated_by_its_display_matrix(
    clips: "Clips", matrix: tuple[int, int, int, int], expected: list[str]
) -> None:
    clip = clips.rotated(clips.quadrants("phone.mp4", 640, 480), *matrix)
    assert clips.corners(first_picture(clip)) == expected


def test_a_rotated_clip_is_cropped_by_its_displayed_shape(clips: "Clips") -> None:
    # 360x640 once upright: 640x480 shows its full width and the middle of its height.
    clip = clips.rotated(clips.quadrants("wide.mp4", 640, 360), 0, 1, -1, 0)
    picture = first_picture(clip, fit="crop")
    assert clips.corners(picture) == ["blue", "red", "white", "green"]
    padded = first_picture(clip, fit="pad")
    assert [clips.colour_at(padded, x, 0.5) for x in (0.02, 0.25, 0.75, 0.98)] == ["black"] * 2 + [
        "black"
    ] * 2
    assert clips.colour_at(padded, 0.4, 0.2) == "blue"
    assert clips.colour_at(padded, 0.6, 0.2) == "red"


def test_crop_cuts_only_the_sides(clips: "Clips") -> None:
    stripes = np.zeros((720, 1280, 3), np.uint8)
    stripes[:, :160] = (255, 0, 0)  # the part of 16:9 beyond 4:3, on each side
    stripes[:, 160:1120] = (0, 255, 0)
    stripes[:, 1120:] = (255, 0, 0)
    clip = clips.video("stripes.mp4", [stripes] * 3)
    picture = first_picture(clip, fit="crop")
    seen = {clips.colour_at(picture, x, y) for x in (0.01, 0.5, 0.98) for y in (0.01, 0.5, 0.98)}
    assert seen == {"green"}


def test_pad_shows_all_between_black_bars(clips: "Clips") -> None:
    picture = first_picture(clips.quadrants("plain.mp4", 1280, 720), fit="pad")
    assert clips.colour_at(picture, 0.5, 0.05) == "black"
    assert clips.colour_at(picture, 0.5, 0.95) == "black"
    assert [clips.colour_at(picture, x, y) for y in (0.2, 0.8) for x in (0.02, 0.97)] == UPRIGHT


def test_wide_pixels_are_shown_wide(clips: "Clips") -> None:
    # 720x576 with pixels 16:11 is shown as 1047x576: padded to 640x352.
    clip = clips.quadrants("anamorphic.mp4", 720, 576, sample_aspect=Fraction(16, 11))
    picture = first_picture(clip, fit="pad")
    assert clips.colour_at(picture, 0.2, 0.1) == "black"
    assert clips.colour_at(picture, 0.2, 0.16) == "red"


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuv420p"])
def test_full_range_becomes_limited_range(clips: "Clips", pixel_format: str) -> None:
    clip = clips.quadrants(
        f"full_{pixel_format}.mp4", 640, 480, pixel_format=pixel_format, full_range=True
    )
    assert clips.corners(first_picture(clip)) == UPRIGHT


@pytest.mark.parametrize("matrix", ["ITU709", "SMPTE240M", "BT2020"])
def test_colours_of_another_matrix_become_bt601(clips: "Clips", matrix: str) -> None:
    clip = clips.quadrants(f"{matrix}.mp4", 1280, 720, matrix=matrix)
    assert clips.corners(first_picture(clip)) == UPRIGHT


@pytest.mark.parametrize("size", [(854, 480), (640, 2), (2, 480), (1920, 1080), (100, 1000)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_any_size_fits(clips: "Clips", size: tuple[int, int], fit: str) -> None:
    first_picture(clips.quadrants("{}x{}.mp4".format(*size), *size, count=1), fit=fit)


def test_an_odd_size_fits(clips: "Clips") -> None:
    clip = clips.quadrants("odd.mkv", 853, 479, codec="ffv1", pixel_format="yuv444p")
    for fit in ("crop", "pad", "stretch"):
        assert clips.corners(first_picture(clip, fit=fit))[0] in ("red", "black")


def test_a_change_of_size_in_the_stream_is_followed(clips: "Clips") -> None:
    small = clips.quadrants("small.ts", 320, 240, count=10)
    large = clips.quadrants("large.ts", 1280, 720, count=10)
    joined = clips.file("joined.ts", small.read_bytes() + large.read_bytes())
    with opened(joined) as source:
        pictures = [picture.i420() for picture in source.pictures()]
    assert len(pictures) == 20
    assert all(clips.corners(picture) == UPRIGHT for picture in pictures)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("still.png", "png", "rgb24"), ("still.jpg", "mjpeg", "yuvj420p")],
)
def test_an_image_is_one_picture(clips: "Clips", name: str, codec: str, pixel_format: str) -> None:
    image = clips.quadrants(
        name, 800, 600, count=1, codec=codec, pixel_format=pixel_format, full_range=True
    )
    with opened(image) as source:
        (picture,) = source.pictures()
        assert clips.corners(picture.i420()) == UPRIGHT


def test_a_picture_with_a_colour_profile_does_not_crash_the_process(clips: "Clips") -> None:
    # PyAV frees the metadata of such side data twice when it is accessed.
    import gc  # noqa: PLC0415  # only for this test

    plain = clips.quadrants("profile.png", 64, 64, count=1, codec="png", pixel_format="rgb24")
    content = plain.read_bytes()
    profile = b"a profile\0\0" + zlib.compress(b"\0" * 128)
    chunk = b"iCCP" + profile
    chunk = struct.pack(">I", len(profile)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    image = clips.file("profiled.png", content[:33] + chunk + content[33:])
    for _ in range(3):
        assert clips.corners(first_picture(image)) == UPRIGHT
        gc.collect()


def test_of_two_video_streams_the_default_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=30) for _ in range(2)]
        for stream, disposition in zip(streams, (Disposition(0), Disposition.default), strict=True):
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            stream.disposition = disposition.value  # type: ignore[assignment]  # PyAV 16 only accepts ints
        for stream, luma in zip(streams, (50, 200), strict=True):
            grey = np.full((96, 64), luma, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="yuv420p")))
            container.mux(stream.encode(None))
    assert first_picture(path)[240, 320] == 200


def test_time_stamps_are_seconds(clips: "Clips") -> None:
    with opened(clips.quadrants("plain.mp4", 1280, 720)) as source:
        stamps = [picture.pts for picture in source.pictures()]
    assert stamps == pytest.approx([number / 30 for number in range(15)])


def test_rewind_starts_over(clips: "Clips") -> None:
    with opened(clips.grey_ramp("ramp.mp4", 40, 30)) as source:
        first = [int(picture.i420()[0, 0]) for picture in source.pictures()]
        assert source.rewind()
        assert [int(picture.i420()[0, 0]) for picture in source.pictures()] == first
    assert len(first) == 40


def test_size_codec_and_rate_are_known(clips: "Clips") -> None:
    with opened(clips.quadrants("plain.mp4", 1280, 720)) as source:
        assert (source.width, source.height, source.codec) == (1280, 720, "h264")
        assert source.rate == pytest.approx(30)
        assert source.look().duration == pytest.approx(0.5, abs=0.1)


def test_the_last_pictures_in_the_decoder_are_returned(clips: "Clips") -> None:
    clip = clips.grey_ramp("ramp.mp4", 40, 30)
    with opened(clip) as source:
        assert len(list(source.pictures())) == 40


def unusable_files(clips: "Clips") -> dict[str, Path]:
    whole = clips.quadrants("plain.mp4", 1280, 720).read_bytes()
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    ihdr = b"\0\0\0\x0dIHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    idat = b"\0\0\0\x04IDAT" + b"\x78\x9c\0\0" + struct.pack(">I", zlib.crc32(b"IDAT\x78\x9c\0\0"))
    return {
        "missing": clips.folder / "nowhere.mp4",
        "empty": clips.file("empty.mp4", b""),
        "text": clips.file("text.mp4", b"this is no video\n" * 100),
        "noise": clips.file("noise.mp4", np.random.default_rng(1).bytes(50_000)),
        "only a header": clips.file("header.mp4", whole[:64]),
        "only sound": clips.sound("sound.mp4"),
        "a false size": clips.file("huge.png", b"\x89PNG\r\n\x1a\n" + ihdr + idat),
        "a folder": clips.folder,
    }


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "empty",
        "text",
        "noise",
        "only a header",
        "only sound",
        "a false size",
        "a folder",
    ],
)
def test_an_unusable_file_is_a_clear_error(clips: "Clips", name: str) -> None:
    path = unusable_files(clips)[name]
    with pytest.raises(SourceUnusable) as caught, opened(path) as source:
        list(source.pictures())
    assert path.name in caught.value.message
    assert not caught.value.retryable


def test_damage_in_the_middle_is_skipped_and_counted(clips: "Clips") -> None:
    clip = clips.grey_ramp("long.ts", 100, 30)
    content = bytearray(clip.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = np.random.default_rng(2).bytes(1500)
    with opened(clips.file("damaged.ts", bytes(content))) as source:
        count = len(list(source.pictures()))
    assert 60 <= count <= 100


def test_a_truncated_file_is_played_up_to_its_end(clips: "Clips") -> None:
    content = clips.grey_ramp("long.ts", 100, 30).read_bytes()
    with opened(clips.file("broken_off.ts", content[: len(content) * 2 // 3])) as source:
        assert len(list(source.pictures())) >= 50


def test_titles_in_another_alphabet_do_not_matter(clips: "Clips") -> None:
    path = clips.folder / "title.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXXXX"
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    latin = path.read_bytes().replace(b"XXXXXX", b"\xe4\xf6\xfc\xdf\xe9\xe8")
    first_picture(clips.file("latin.mkv", latin))


@pytest.mark.parametrize(
    ("url", "how", "expected"),
    [
        ("rtsp://user:hidden@127.0.0.1:9/x", {"low_delay": True}, SourceUnreachable),
        ("nosuchscheme://user:hidden@host/x", {}, SourceUnusable),
        ("/dev/video99", {"format": "v4l2", "low_delay": True}, SourceUnreachable),
        ("x.mp4", {"format": "nosuchformat"}, SourceUnusable),
        ("nosuchfilter=1", {"format": "lavfi"}, SourceUnusable),
        ("http://user:hidden@127.0.0.1:9/x.mp4", {}, SourceUnreachable),
        ("http://[broken", {}, SourceError),
    ],
)
def test_what_cannot_be_opened_is_reported_without_its_password(
    url: str, how: dict[str, Any], expected: type[SourceError]
) -> None:
    with pytest.raises(expected) as caught, opened(url, **how):
        pass
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_keeps_a_picture_whose_source_is_closed(clips: "Clips") -> None:
    """Raw pictures of a camera are the device's memory, which FFmpeg gives back to a closed one.

    The traceback of an error keeps what the last step had.
    """
    with opened(clips.quadrants("plain.mp4", 1280, 720)) as source:
        pictures = source.pictures()
        picture = next(pictures)
        kept = inspect.getgeneratorlocals(pictures).values()
        assert not [one for one in kept if isinstance(one, VideoFrame | Packet)]
        picture.i420()
    with pytest.raises(SourceLost, match="closed"):
        picture.i420()


def test_what_was_counted_can_be_asked_for_after_the_close(clips: "Clips") -> None:
    """Status asks in another thread, maybe at this moment."""
    with opened(clips.quadrants("plain.mp4", 1280, 720)) as source:
        next(source.pictures())
    assert source.corrupt == 0
    assert source.packets >= 1


def test_a_generator_needs_no_file() -> None:
    first_picture("testsrc2=size=1280x720:rate=30", format="lavfi")


@pytest.mark.parametrize(
    ("size", "processors", "live", "threads"),
    [
        ((1920, 1080), 8, True, 1),
        ((1920, 1080), 8, False, 2),
        ((3840, 2160), 8, True, 4),
        ((3840, 2160), 2, True, 2),
        ((3840, 2160), 1, False, 2),
        ((7680, 4320), 3, False, 3),
    ],
)
def test_large_pictures_are_decoded_by_more_threads(
    *, size: tuple[int, int], processors: int, live: bool, threads: int
) -> None:
    width, height = size
    assert thread_count(width * height, processors, live=live) == threads


def test_pictures_that_are_all_key_frames_do_not_pile_up() -> None:
    """PyAV keeps what was asked for its side data until a garbage collection."""
    held: list[int] = []
    gc.collect()
    gc.disable()
    try:
        with opened("testsrc2=size=1280x720:rate=30", format="lavfi") as source:
            for picture, _ in zip(source.pictures(), range(30), strict=False):
                picture.i420()
                held.append(resident_kib())
    finally:
        gc.enable()
    assert held[-1] - held[9] < 10 * PICTURE_KIB  # of 20


PICTURE_KIB = 1280 * 720 * 3 // 2 // 1024


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def test_a_jump_in_the_time_stamps_is_no_interval_between_key_frames(clips: "Clips") -> None:
    parts = (clips.grey_ramp("now.ts", 10, 20), clips.grey_ramp("later.ts", 10, 20, LATER))
    joined = clips.file("jump.ts", b"".join(part.read_bytes() for part in parts))
    source = VideoInput.open(str(joined), geometry=VGA)
    try:
        assert sum(1 for _ in source.pictures()) == 20
        assert source.key_interval < 60.0
    finally:
        source.close()


LATER = [3000.0 + number / 20 for number in range(10)]
"""s: the stamps of a camera whose clock was set."""
