"""Which mode of a camera is taken."""

from fractions import Fraction

import pytest

from relayd.media.frames import Geometry
from relayd.source.camera_mode import ModeRequest, mode_options
from relayd.v4l2.modes import Mode

VGA, HD, FULL_HD = Geometry(640, 480), Geometry(1280, 720), Geometry(1920, 1080)
USUAL = (30, 24, 20, 15, 10, 5)


def modes(fourcc: str, *sizes: tuple[int, int, tuple[float, ...]]) -> list[Mode]:
    return [
        Mode(fourcc, width, height, tuple(Fraction(rate).limit_denominator(1001) for rate in rates))
        for width, height, rates in sizes
    ]


WEBCAM = [
    *modes(
        "YUYV",
        (640, 480, USUAL), (320, 240, USUAL), (640, 360, USUAL), (800, 600, (24, 20, 15)),
        (1280, 720, (10, 5)), (1920, 1080, (5,)),
    ),
    *modes(
        "MJPG",
        (640, 480, USUAL), (320, 240, USUAL), (640, 360, USUAL), (800, 600, USUAL),
        (1280, 720, USUAL), (1920, 1080, USUAL),
    ),
]  # fmt: skip
"""As a common USB 2 webcam has them."""
GRABBER_4K = modes(
    "MJPG", (3840, 2160, (30,)), (2560, 1440, (60, 50, 30)), (1920, 1080, (60, 50, 30))
) + modes("YUYV", (1920, 1080, (60, 30)), (1280, 720, (60, 30)))
FACE_LOGIN = modes("GREY", (640, 360, (30, 15)), (1280, 720, (30,))) + modes(
    "YUYV", (640, 360, (30,))
)
VIVID = modes(
    "YUYV", (320, 180, (60, 50, 40)), (640, 360, (40, 30, 25)), (640, 480, (25, 15)),
    (1280, 720, (12.5,)), (1920, 1080, (5,)),
)  # fmt: skip


def chosen(camera: list[Mode], geometry: Geometry, fps: float, **options: str) -> str:
    best = mode_options(camera, ModeRequest(geometry, fps, options))[0]
    return " ".join(best.get(key, "-") for key in ("input_format", "video_size", "framerate"))


@pytest.mark.parametrize(
    ("camera", "geometry", "fps", "mode"),
    [
        # The size near twice the relay's has too few raw pictures a second: MJPEG.
        (WEBCAM, VGA, 20, "mjpeg 1280x720 20/1"),
        (WEBCAM, VGA, 30, "mjpeg 1280x720 30/1"),
        (WEBCAM, HD, 20, "mjpeg 1920x1080 20/1"),
        # Raw pictures where they are fast enough.
        (WEBCAM, VGA, 10, "yuyv422 1280x720 10/1"),
        (WEBCAM, Geometry(320, 240), 20, "yuyv422 640x480 20/1"),
        (GRABBER_4K, VGA, 20, "yuyv422 1280x720 30/1"),
        # Never too slow where something else serves, however near its size is.
        (VIVID, VGA, 20, "yuyv422 640x480 25/1"),
        (VIVID, HD, 20, "yuyv422 640x480 25/1"),
        (VIVID, Geometry(640, 360), 30, "yuyv422 640x360 30/1"),
        # Nothing is fast enough: the fastest that is not tiny.
        (WEBCAM, VGA, 60, "mjpeg 1280x720 30/1"),
        (VIVID, HD, 60, "yuyv422 640x360 40/1"),
        # 4K at 30 pictures a second would take a whole processor core.
        (GRABBER_4K, FULL_HD, 20, "yuyv422 1920x1080 30/1"),
        # An infrared picture has no colours.
        (FACE_LOGIN, VGA, 20, "yuyv422 640x360 30/1"),
        (FACE_LOGIN[:2], VGA, 20, "gray 1280x720 30/1"),
        # 29.97 pictures a second are 30, and an exact fraction is passed on.
        (modes("MJPG", (1280, 720, (30000 / 1001,))), VGA, 30, "mjpeg 1280x720 30000/1001"),
        # No rates are told.
        (modes("NV12", (1280, 720, ()), (640, 480, ())), VGA, 30, "nv12 1280x720 -"),
        # Nothing that can be chosen: the device's own mode.
        (modes("pRAA", (1280, 720, (30,))), VGA, 20, "- - -"),
        ([], VGA, 20, "- - -"),
    ],
)
def test_the_mode_nearest_to_twice_the_relays_size_at_no_fewer_pictures_a_second_is_taken(
    camera: list[Mode], geometry: Geometry, fps: float, mode: str
) -> None:
    assert chosen(camera, geometry, fps) == mode


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"video_size": "1920x1080"}, "mjpeg 1920x1080 20/1"),
        ({"framerate": "30"}, "mjpeg 1280x720 30"),
        ({"framerate": "30000/1001"}, "mjpeg 1280x720 30000/1001"),
        ({"input_format": "yuyv422"}, "yuyv422 800x600 20/1"),
        ({"input_format": "yuyv422", "video_size": "1280x720"}, "yuyv422 1280x720 10/1"),
        # Not among the device's modes, or not to be known: the user's alone.
        ({"video_size": "1000x1000"}, "- 1000x1000 -"),
        ({"video_size": "hd720"}, "- hd720 -"),
        ({"input_format": "h264"}, "h264 - -"),
        ({"standard": "PAL"}, "- - -"),
        ({"framerate": "fast"}, "mjpeg 1280x720 fast"),
    ],
)
def test_the_users_options_win_and_the_rest_matches_them(
    options: dict[str, str], mode: str
) -> None:
    assert chosen(WEBCAM, VGA, 20, **options) == mode


def test_after_the_best_mode_one_of_the_other_kind_is_tried_and_then_the_devices_own() -> None:
    tries = mode_options(WEBCAM, ModeRequest(VGA, 20, {"thread_queue_size": "8"}))
    assert [one.get("input_format") for one in tries] == ["mjpeg", "yuyv422", None]
    assert tries[1]["video_size"] == "800x600"
    assert all(one["thread_queue_size"] == "8" for one in tries)
