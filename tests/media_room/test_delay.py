"""Scenes are synthetic: textured background, a head that moves, its face replaced on return."""

import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from relayd.media.delay import WINDOW, DelayMeter, thumbnail
from relayd.media.frames import I420, Geometry, SourceFrame, SwappedFrame, black

GEOMETRY = Geometry(320, 240)
FPS = 20
PERIOD = 1 / FPS
Plane = NDArray[np.floating]


class Scene:
    """Draws what the camera sees and what the swap engine makes of it."""

    def __init__(self, seed: int = 1, noise: float = 2.0) -> None:
        self.random = np.random.default_rng(seed)
        self.noise = noise
        self.background, self.own_face, self.new_face = (self._texture() for _ in range(3))
        self.rows: NDArray[np.int_]
        self.columns: NDArray[np.int_]
        self.rows, self.columns = np.mgrid[: GEOMETRY.height, : GEOMETRY.width]

    def _texture(self) -> Plane:
        plane = np.full((GEOMETRY.height, GEOMETRY.width), 110, np.float32)
        for size in (8, 40):
            cells = self.random.normal(0, 20, (GEOMETRY.height // size, GEOMETRY.width // size))
            plane += np.kron(cells, np.ones((size, size))).astype(np.float32)
        return plane

    def _draw(self, x: float, y: float, face: Plane) -> Plane:
        radius = np.hypot((self.columns - 160 - x) / 60, (self.rows - 120 - y) / 80)
        head = np.clip((1.4 - radius) * 10, 0, 1)
        inner = np.clip((1.0 - radius) * 10, 0, 1)
        moved = np.roll(face, (round(y), round(x)), (0, 1))
        return self.background * (1 - head) + head * (60 + inner * (moved - 60))

    def pair(self, x: float, y: float) -> tuple[I420, I420]:
        """Return a source picture and its swapped one after a lossy encoder."""
        source = self._draw(x, y, self.own_face)
        swapped = self._draw(x, y, self.new_face + 20)
        blur = sum(np.roll(swapped, shift, axis) for shift in (-1, 1) for axis in (0, 1)) / 4
        quantised = np.rint(blur / 6) * 6
        return (
            i420(source + self.random.normal(0, self.noise, source.shape)),
            i420(quantised + self.random.normal(0, 0.5, source.shape)),
        )


def i420(plane: Plane) -> I420:
    picture = black(GEOMETRY)
    picture[: GEOMETRY.height] = np.clip(np.rint(plane), 16, 235)
    return picture


def talking(step: int) -> tuple[float, float]:
    """Return the position in pixels of a head whose path never repeats."""
    moment = step * PERIOD
    return 18 * np.sin(1.9 * moment) + 6 * np.sin(5.3 * moment), 7 * np.sin(2.7 * moment)


def still(step: int) -> tuple[float, float]:
    return 0.0, 0.0


Path = Callable[[int], tuple[float, float]]


class Film:
    """Pairs of pictures of a scene, at every `step`th moment: drawn on first use."""

    def __init__(self, path: Path, noise: float, step: int) -> None:
        self._scene, self._path, self._step = Scene(noise=noise), path, step
        self._drawn: list[tuple[I420, I420]] = []

    def first(self, count: int) -> list[tuple[I420, I420]]:
        for number in range(len(self._drawn), count):
            self._drawn.append(self._scene.pair(*self._path(number * self._step)))
        return self._drawn[:count]


@cache
def film(path: Path = talking, noise: float = 2.0, step: int = 1) -> Film:
    """Return the film shared by several tests, since drawing is slow."""
    return Film(path, noise, step)


def measured(
    delay_frames: int,
    path: Path = talking,
    *,
    frames: int = 120,
    noise: float = 2.0,
    repeat: int = 1,
) -> list[float]:
    """Return the delays that a meter measures if each picture is shown `delay_frames` later.

    With `repeat`, each source frame is sent that many times.
    """
    found = list[float]()
    meter = DelayMeter(FPS, found.append)
    pairs = film(path, noise, repeat).first(-(-frames // repeat))
    in_transit: list[I420] = []
    source = swapped = black(GEOMETRY)
    captured = 0.0
    for step in range(frames):
        if step % repeat == 0:
            source, swapped = pairs[step // repeat]
            captured = step * PERIOD
        meter.sent(SourceFrame(source, captured))
        in_transit.append(swapped)
        if step >= delay_frames:
            at = step * PERIOD
            meter.shown(SwappedFrame(in_transit[step - delay_frames], at), at)
    return found


def wrong(found: list[float], true_delay: float) -> list[float]:
    return [delay for delay in found if abs(delay - true_delay) > PERIOD / 10]


def test_a_known_delay_is_measured_exactly_behind_swap_encoder_and_noise() -> None:
    for delay_frames in (2, 8, 30):
        found = measured(delay_frames, frames=120 + delay_frames)
        assert len(found) > 40, f"too few matches at {delay_frames} frames: {len(found)}"
        assert not wrong(found, delay_frames * PERIOD)


def test_the_delay_of_a_still_scene_is_unknown_and_never_wrong() -> None:
    assert measured(8, still) == []
    assert measured(8, still, noise=0.0) == []


def test_the_delay_of_a_loop_shorter_than_the_window_is_unknown() -> None:
    one_loop = FPS
    found = measured(8, lambda step: talking(step % FPS), noise=0.0)
    assert len(found) < one_loop - 8
    assert not wrong(found, 8 * PERIOD)


def test_a_delay_longer_than_the_window_gives_hardly_any_measurement() -> None:
    frames = int(WINDOW * FPS) + 80
    assert len(measured(int(WINDOW * FPS) + 10, frames=frames)) <= 4


def test_repeats_of_a_slow_source_are_measured_once_from_the_capture() -> None:
    found = measured(8, repeat=2, frames=160)
    assert len(found) > 20
    assert len(found) <= 160 / 2
    assert not wrong(found, 8 * PERIOD)


def test_a_frame_that_the_output_repeats_is_not_measured_again() -> None:
    found = list[float]()
    meter = DelayMeter(FPS, found.append)
    for step, (source, swapped) in enumerate(film().first(60)):
        meter.sent(SourceFrame(source, step * PERIOD))
        frame = SwappedFrame(swapped, step * PERIOD)
        for again in range(3):
            meter.shown(frame, step * PERIOD + 0.01 * (again + 1))
    assert found
    assert not wrong(found, 0.01)


def test_a_changed_delay_is_followed() -> None:
    found = list[float]()
    meter = DelayMeter(FPS, found.append)
    in_transit: list[I420] = []
    for step, (source, swapped) in enumerate(film().first(160)):
        meter.sent(SourceFrame(source, step * PERIOD))
        in_transit.append(swapped)
        delay_frames = 5 if step < 80 else 15
        if step >= 15:
            meter.shown(SwappedFrame(in_transit[step - delay_frames], step), step * PERIOD)
    assert {round(delay / PERIOD) for delay in found} == {5, 15}
    assert round(found[-1] / PERIOD) == 15


def test_the_spread_is_that_of_the_measurements() -> None:
    meter = DelayMeter(FPS)
    assert meter.spread().p50 is None
    assert meter.spread().count == 0
    for step, (source, swapped) in enumerate(film().first(60)):
        meter.sent(SourceFrame(source, step * PERIOD))
        meter.shown(SwappedFrame(swapped, step), step * PERIOD + 0.25)
    spread = meter.spread()
    assert spread.count > 20
    assert spread.p50 is not None
    assert abs(spread.p50 - 0.25) < 0.001
    assert spread.p95 is not None
    assert abs(spread.p95 - 0.25) < 0.001


def test_a_thumbnail_is_the_mean_of_each_cell_whatever_the_brightness() -> None:
    random = np.random.default_rng(3)
    plane = random.integers(40, 200, (GEOMETRY.height, GEOMETRY.width)).astype(np.float32)
    cells = plane.reshape(30, 8, 40, 8).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(thumbnail(i420(plane)), cells - cells.mean(), atol=1e-3)
    np.testing.assert_allclose(thumbnail(i420(plane)), thumbnail(i420(plane + 20)), atol=1e-3)


def test_one_thread_may_send_while_another_shows() -> None:
    pairs = film().first(40)
    found = list[float]()
    meter = DelayMeter(FPS, found.append)
    sent_steps = 0
    failures: list[BaseException] = []

    def send() -> None:
        nonlocal sent_steps
        for step, (source, _) in enumerate(pairs):
            meter.sent(SourceFrame(source, step * PERIOD))
            sent_steps = step
            time.sleep(0.001)

    def show() -> None:
        try:
            while sender.is_alive():
                step = max(0, sent_steps - 2)
                at = (step + 2) * PERIOD
                meter.shown(SwappedFrame(pairs[step][1], step), at)
                meter.spread()
        except BaseException as fault:  # noqa: BLE001 - reported by the test itself
            failures.append(fault)

    sender = threading.Thread(target=send)
    viewer = threading.Thread(target=show)
    for thread in (sender, viewer):
        thread.start()
    for thread in (sender, viewer):
        thread.join()
    assert not failures
    assert found
    assert not wrong(found, 2 * PERIOD)


def test_the_meter_costs_far_less_than_a_frame_interval() -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(16, 235, (720, 640), dtype=np.uint8) for _ in range(8)]
    meter = DelayMeter(FPS)
    best = 1.0
    for step in range(200):
        start = time.perf_counter()
        meter.sent(SourceFrame(pictures[step % 8], step * PERIOD))
        meter.shown(SwappedFrame(pictures[(step + 3) % 8], step), step * PERIOD + 0.1)
        best = min(best, time.perf_counter() - start) if step > 70 else best
    assert best < 0.002
