"""Each picture is shown as players show it: upright, in shape, whole and over black."""

import io
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from relayd.config.settings import SourceSettings
from relayd.errors import SourceUnusable
from relayd.media import container
from relayd.media.frames import I420, Geometry, luma
from relayd.media.orientation import by_hand
from relayd.source.plans import plan_input
from relayd.urls.safe import MediaUrl
from tests.support.clips import quadrants
from tests.support.heif import tiled
from tests.support.inputs import VGA, opened
from tests.support.rtsp import RtspCamera

if TYPE_CHECKING:
    from tests.support.clips import Clips

NAMES = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue", (255, 255, 255): "white"}


def first_picture(url: Path | str, **how: Any) -> I420:
    with opened(url, **how) as source:
        return next(source.pictures()).i420()


def ffmpeg(*arguments: str | Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def photo(orientation: int, image_format: str, **how: Any) -> bytes:
    """A picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    content = io.BytesIO()
    Image.fromarray(quadrants(320, 240)).save(content, image_format, exif=exif, **how)
    return content.getvalue()


def corners_upright(image: bytes) -> list[str]:
    """Name the quadrants as Pillow sets them upright."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(image)).convert("RGB"))
    return [
        NAMES[upright.getpixel((int(x * upright.width), int(y * upright.height)))]  # type: ignore[index]
        for y in (0.2, 0.8)
        for x in (0.2, 0.8)
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_in_each_of_the_eight_orientations_of_exif(
    clips: "Clips", orientation: int
) -> None:
    reference = photo(orientation, "PNG")
    jpeg = clips.file(f"{orientation}.jpg", photo(orientation, "JPEG", quality=95, subsampling=0))
    assert clips.corners(first_picture(jpeg)) == corners_upright(reference)


@pytest.mark.skipif(av.library_versions["libavcodec"] < (62, 20, 0), reason="FFmpeg 8.1 on")
@pytest.mark.parametrize("orientation", [2, 5])
def test_a_mirrored_png_or_webp_with_a_colour_profile_is_upright(
    clips: "Clips", orientation: int
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image_format in ("PNG", "WEBP"):
        image = photo(orientation, image_format, icc_profile=profile, lossless=True)
        path = clips.file(f"p{orientation}.{image_format.lower()}", image)
        assert clips.corners(first_picture(path)) == corners_upright(photo(orientation, "PNG"))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((-1, 0, 0, 1), ["green", "red", "white", "blue"]),  # a selfie
        ((1, 0, 0, -1), ["blue", "white", "red", "green"]),
        ((0, 1, 1, 0), ["red", "blue", "green", "white"]),
        ((0, -1, -1, 0), ["white", "green", "blue", "red"]),
    ],
)
def test_a_mirrored_clip_is_upright(
    clips: "Clips", matrix: tuple[int, int, int, int], expected: list[str]
) -> None:
    clip = clips.rotated(clips.quadrants("selfie.mp4", 640, 480), *matrix)
    assert clips.corners(first_picture(clip)) == expected


def test_an_orientation_that_comes_with_key_frames_lasts_for_all_pictures(clips: "Clips") -> None:
    plain, turned = clips.folder / "plain.h264", clips.folder / "turned.ts"
    ffmpeg("-i", clips.quadrants("sei.mp4", 640, 480, count=40), "-c", "copy", plain)
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v",
           "h264_metadata=display_orientation=insert:rotate=90:flip=horizontal",
           turned)  # fmt: skip
    with opened(turned) as source:
        shown = {tuple(clips.corners(picture.i420())) for picture in source.pictures()}
    ffmpeg("-i", turned, "-frames:v", "1", clips.folder / "as_ffmpeg.png")
    expected = clips.corners(first_picture(clips.folder / "as_ffmpeg.png"))
    assert expected != ["red", "green", "blue", "white"]
    assert shown == {tuple(expected)}


def test_what_is_turned_by_hand_is_turned_after_it_stands_upright(clips: "Clips") -> None:
    clip = clips.rotated(clips.quadrants("hand.mp4", 640, 480), 0, 1, -1, 0)
    assert clips.corners(first_picture(clip)) == ["blue", "red", "white", "green"]
    turned = first_picture(clip, turn=by_hand(90, mirror=False))
    assert clips.corners(turned) == ["white", "blue", "green", "red"]
    mirrored = first_picture(clip, turn=by_hand(90, mirror=True))
    assert clips.corners(mirrored) == ["blue", "white", "red", "green"]


def test_a_picture_turned_by_hand_is_fitted_by_its_new_shape(clips: "Clips") -> None:
    clip = clips.quadrants("wide_hand.mp4", 640, 360)
    picture = first_picture(clip, fit="pad", turn=by_hand(90, mirror=False))
    seen = [clips.colour_at(picture, x, 0.2) for x in (0.1, 0.4, 0.6, 0.9)]
    assert seen == ["black", "blue", "red", "black"]


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_the_containers_aspect_counts_before_the_codecs(clips: "Clips", container: str) -> None:
    square = clips.quadrants("square.mp4", 720, 576)
    wide = square.with_name(f"wide.{container}")
    ffmpeg("-i", square, "-c", "copy", "-aspect", "16:9", wide)
    picture = first_picture(wide, fit="pad")  # 16:9 in 4:3: 60 black lines above
    assert clips.colour_at(picture, 0.2, 0.1) == "black"
    assert clips.colour_at(picture, 0.2, 0.15) == "red"
    assert clips.colour_at(picture, 0.02, 0.5) != "black"


def test_an_aspect_that_the_codec_changes_is_followed(clips: "Clips") -> None:
    square, wide = (clips.folder / name for name in ("a.ts", "b.ts"))
    for path, aspect in ((square, "1"), (wide, "16/11")):
        ffmpeg("-f", "lavfi", "-i", "color=red:s=720x576:d=0.2,format=yuv420p", "-vf",
               f"setsar={aspect}", "-c:v", "mpeg2video", path)  # fmt: skip
    both = clips.file("aspects.ts", square.read_bytes() + wide.read_bytes())
    with opened(both, fit="pad") as source:
        pictures = [picture.i420() for picture in source.pictures()]
    # 720x576 of square pixels is 5:4, narrower than 4:3; of wide ones 1.8, wider.
    assert luma(pictures[0])[:, 10].max() <= 17 < luma(pictures[0])[10].max()
    assert luma(pictures[-1])[10].max() <= 17 < luma(pictures[-1])[:, 10].max()


def comb(picture: I420) -> float:
    """How much neighbouring lines differ from each other."""
    return float(np.abs(np.diff(luma(picture).astype(int), 2, axis=0)).mean())


def test_an_interlaced_clip_has_no_comb_and_comes_without_delay(clips: "Clips") -> None:
    size = Geometry(720, 480)
    moving = "testsrc2=s=720x480:r=60:d=0.5"
    plain, woven, unmarked = (clips.folder / name for name in ("p.mkv", "i.mkv", "u.mkv"))
    ffmpeg("-f", "lavfi", "-i", f"{moving},select='not(mod(n,2))',setpts=N/30/TB", "-r", "30",
           "-c:v", "ffv1", plain)  # fmt: skip
    ffmpeg("-f", "lavfi", "-i", moving, "-vf", "tinterlace=interleave_top", "-c:v", "libx264",
           "-preset", "ultrafast", "-crf", "4", "-flags", "+ilme+ildct", woven)  # fmt: skip
    ffmpeg("-f", "lavfi", "-i", moving, "-vf", "tinterlace=interleave_top,setfield=prog",
           "-c:v", "ffv1", unmarked)  # fmt: skip
    shown: dict[str, list[I420]] = {}
    for path in (plain, woven, unmarked):
        with opened(path, geometry=size) as source:
            shown[path.name] = [picture.i420() for picture in source.pictures()]
    assert len(shown["i.mkv"]) == len(shown["p.mkv"]) == 15
    for number in (0, 7, 14):
        smooth, whole, combed = (shown[name][number] for name in ("p.mkv", "i.mkv", "u.mkv"))
        assert comb(combed) > 1.5 * comb(smooth)
        if number:  # the first has no picture before it to compare with
            assert comb(whole) < 1.2 * comb(smooth)
        # The lines of the upper field are those of this moment, not of the picture before.
        now, before = (
            np.abs(luma(whole)[::2].astype(int) - luma(shown["p.mkv"][other])[::2]).mean()
            for other in (number, number - 1)
        )
        assert now < before / 3


def test_a_container_that_says_interlaced_is_believed_where_the_codec_is_silent(
    clips: "Clips",
) -> None:
    path = clips.folder / "u.mov"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=720x480:r=60:d=0.2", "-vf", "tinterlace=interleave_top",
           "-c:v", "huffyuv", "-pix_fmt", "yuv422p", "-field_order", "tt", path)  # fmt: skip
    with av.open(str(path)) as container:
        if not getattr(container.streams.video[0].codec_context, "field_order", 0):
            pytest.skip("PyAV 16 does not say it")
    plain = clips.folder / "u.avi"
    ffmpeg("-i", path, "-c", "copy", plain)
    with opened(path, geometry=Geometry(720, 480)) as source:
        whole = [picture.i420() for picture in source.pictures()][-1]
    with opened(plain, geometry=Geometry(720, 480)) as source:
        combed = [picture.i420() for picture in source.pictures()][-1]
    assert comb(whole) < comb(combed) / 2


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGBA"), ("p.png", "P"), ("a.webp", "RGBA"), ("la.png", "LA")]
)
def test_what_is_transparent_is_black_whatever_colour_it_hides(
    clips: "Clips", name: str, mode: str
) -> None:
    picture = np.zeros((120, 160, 4), np.uint8)
    picture[..., :3] = 255 if mode == "LA" else (0, 255, 0)
    picture[:60, :, 3] = 255
    image = Image.fromarray(picture)
    image = image.quantize() if mode == "P" else image.convert(mode)
    path = clips.folder / name
    image.save(path)
    shown = first_picture(path)
    expected = "white" if mode == "LA" else "green"
    assert [clips.colour_at(shown, 0.5, y) for y in (0.2, 0.8)] == [expected, "black"]
    assert clips.colour_at(shown, 0.5, 0.505) == "black"  # no green at the edge


def test_of_two_streams_the_largest_is_shown_and_any_by_its_number(clips: "Clips") -> None:
    path = clips.folder / "two.ts"  # marks none as the default
    ffmpeg("-f", "lavfi", "-i", "color=red:s=320x240:d=0.2", "-f", "lavfi", "-i",
           "color=blue:s=640x480:d=0.2", "-map", "0", "-map", "1", "-c:v", "libx264",
           "-pix_fmt", "yuv420p", path)  # fmt: skip
    assert clips.colour_at(first_picture(path), 0.5, 0.5) == "blue"
    assert clips.colour_at(first_picture(path, stream=0), 0.5, 0.5) == "red"
    assert clips.colour_at(first_picture(path, stream=1), 0.5, 0.5) == "blue"
    with pytest.raises(SourceUnusable, match="no video stream 2"):
        first_picture(path, stream=2)


@pytest.mark.skipif(not hasattr(av.VideoStream, "discard"), reason="since PyAV 18")
def test_what_is_not_shown_is_not_read(clips: "Clips") -> None:
    path = clips.folder / "sound.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.2", "-f", "lavfi", "-i",
           "testsrc2=s=320x240:d=0.2", "-f", "lavfi", "-i", "sine=d=0.2", "-map", "0", "-map", "1",
           "-map", "2", path)  # fmt: skip
    with opened(path) as source:
        streams = source._container.streams
        assert [stream.discard.name for stream in streams] == ["all", "default", "all"]


def test_of_two_streams_of_a_camera_the_largest_is_shown_and_any_by_its_number(
    rtsp_camera: RtspCamera, clips: "Clips"
) -> None:
    plan = plan_input(SourceSettings(url=MediaUrl(rtsp_camera.url(path="two"))))
    for wish, size, colour in (("best", (1280, 720), "blue"), (0, (320, 240), "red")):
        how: dict[str, Any] = {"options": plan.options[0], "stream": wish, "low_delay": True}
        with opened(plan.url, **how) as source:
            assert (source.width, source.height) == size
            shown = [next(source.pictures()).i420() for _ in range(3)]
        assert [clips.colour_at(picture, 0.5, 0.5) for picture in shown] == [colour] * 3


def test_a_rate_that_no_video_has_is_not_told(clips: "Clips") -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    path = clips.folder / "fast.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=0)
    with opened(path) as source:
        assert next(source.pictures()).i420().shape == VGA.shape
        assert source.rate <= 1000


needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow writes no AVIF")


@needs_avif
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 4), (1, 2)])
def test_a_photo_in_tiles_is_shown_whole(clips: "Clips", rows: int, columns: int) -> None:
    path = clips.file("tiles.avif", tiled(quadrants(630, 470), rows, columns))
    with opened(path) as source:
        assert (source.width, source.height) == (630, 470)
        (picture,) = source.pictures()
        shown = picture.i420()
        assert clips.corners(shown) == ["red", "green", "blue", "white"]
        assert clips.colour_at(shown, 0.99, 0.99) == "white"  # nothing of the tiles' edge
        assert source.rewind()
        (again,) = source.pictures()
        assert np.array_equal(again.i420(), shown)


@needs_avif
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"rotate": 3}, ["blue", "red", "white", "green"]),
        ({"rotate": 1}, ["green", "white", "red", "blue"]),
        ({"flip": 1}, ["green", "red", "white", "blue"]),
        ({"rotate": 1, "flip": 0}, ["red", "blue", "green", "white"]),
    ],
)
def test_a_photo_in_tiles_is_upright(
    clips: "Clips", how: dict[str, int], expected: list[str]
) -> None:
    path = clips.file("turned.avif", tiled(quadrants(640, 480), 2, 2, **how))
    assert clips.corners(first_picture(path)) == expected


@needs_avif
def test_tiles_that_cannot_be_joined_are_refused_rather_than_shown_one_by_one(
    clips: "Clips", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "MAX_PIXELS", 640 * 480 - 1)
    path = clips.file("large.avif", tiled(quadrants(640, 480), 2, 2))
    with pytest.raises(SourceUnusable, match="in tiles that cannot be joined"):
        first_picture(path)


def test_an_animated_webp_is_played_or_refused(clips: "Clips") -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    path = clips.folder / "moving.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    if "webp_anim" in av.formats_available:
        with opened(path) as source:
            assert len(list(source.pictures())) == 3
        return
    with pytest.raises(SourceUnusable, match="no picture that can be decoded"):
        first_picture(path)
