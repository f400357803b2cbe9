"""The procedural people and the media made of them."""

import numpy as np
import pytest
from PIL import Image

from relayd.emulator.swap import decode_image, find_faces
from tests.people.make_media import MEDIA
from tests.people.people import AT_REST, LOOP, MIRA, PEOPLE, pose_at, render, render_pose

SMALL = (320, 240)


def test_a_person_is_one_face_to_the_detector() -> None:
    (face,) = find_faces(render_pose(MIRA, AT_REST, 0.0, SMALL, detail=1.0))
    assert face.score > 0.75


def test_a_pictures_size_is_the_one_asked_for() -> None:
    picture = render(MIRA, 1.0, SMALL, detail=1.0)
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8


def test_the_same_moment_is_the_same_picture() -> None:
    one, other = (render(MIRA, 2.2, SMALL, detail=1.0) for _ in range(2))
    assert np.array_equal(one, other)


def test_the_loop_closes_without_a_jump() -> None:
    first, wrapped = (render(MIRA, t, SMALL, detail=1.0) for t in (0.0, LOOP))
    assert np.abs(first.astype(int) - wrapped).max() <= 1


def test_frames_of_a_second_all_differ() -> None:
    frames = [render(MIRA, 3 + n / 5, SMALL, detail=1.0).astype(int) for n in range(5)]
    steps = [np.abs(a - b).mean() for a, b in zip(frames[1:], frames[:-1], strict=True)]
    assert min(steps) > 0.05


@pytest.mark.parametrize("name", PEOPLE)
def test_motion_stays_natural_and_does_not_repeat_within_two_seconds(name: str) -> None:
    moments = np.arange(0, LOOP, 0.04)
    yaws = np.array([pose_at(PEOPLE[name], t).yaw for t in moments])
    assert 10 < np.abs(yaws).max() <= 25
    assert np.abs(np.diff(yaws)).max() < 2.5
    for lag in range(12, 50):
        assert np.abs(yaws[lag:] - yaws[:-lag]).max() > 5


@pytest.mark.parametrize("name", PEOPLE)
def test_everyone_blinks_and_talks(name: str) -> None:
    poses = [pose_at(PEOPLE[name], t).expression for t in np.arange(0, LOOP, 0.04)]
    assert max(pose.blink for pose in poses) > 0.9
    assert np.mean([pose.blink > 0.1 for pose in poses]) < 0.15
    assert max(pose.mouth for pose in poses) > 0.5
    assert min(pose.mouth for pose in poses) < 0.05


@pytest.mark.parametrize("name", ["portrait.png", "portrait2.png"])
def test_each_portrait_shows_one_frontal_face(name: str) -> None:
    (face,) = find_faces(decode_image((MEDIA / name).read_bytes()))
    assert face.region[2] > 200
    eye, other_eye = face.points[:2]
    assert abs(eye[1] - other_eye[1]) < 8


def test_the_media_are_small_enough_to_ship() -> None:
    assert (MEDIA / "person.mp4").stat().st_size < 1_500_000
    for name in ("portrait.png", "portrait2.png"):
        assert (MEDIA / name).stat().st_size < 400_000
        with Image.open(MEDIA / name) as picture:
            assert picture.size == (512, 640)
