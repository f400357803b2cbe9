"""The media side of a relay: outputs that are missing, and a suspended source."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import pytest

from relayd.clock import MonotonicClock
from relayd.config.loading import load_tree
from relayd.errors import CameraUnavailable
from relayd.media.frames import OutputFrame, SourceFrame, SwappedFrame, black
from relayd.output.base import OutputChange, OutputEvent
from relayd.output.clock import Shown
from relayd.relay.metrics import Metrics
from relayd.relay.pipeline import Pipeline
from tests.support.sounding import Sounding, write


class Screenless:
    """An output that can be missing."""

    def __init__(self, name: str, *, missing: bool = False) -> None:
        self.name, self.missing = name, missing
        self.shown = Event()
        self.is_open = False

    def open(self) -> None:
        if self.missing:
            raise CameraUnavailable(f"{self.name} is not there", hint="make it")
        self.is_open = True

    def show(self, frame: OutputFrame) -> None:
        self.shown.set()

    def close(self) -> None:
        self.is_open = False


class Rig:
    """A pipeline with the outputs of a test, and what it sent and emitted."""

    def __init__(self, folder: Path, *outputs: Any, require: bool = False, **tree: Any) -> None:
        self.sent: list[SourceFrame] = []
        self.output_events: list[OutputEvent] = []
        settings = load_tree(
            {
                "face": {"image": "http://service.example/a.png"},
                "privacy": {"fallback": "hold"},
                "output": [],
                "state": {"directory": str(folder)},
                **tree,
            }
        )
        self.clock = MonotonicClock()
        self.geometry = settings.video.geometry
        self.pipeline = Pipeline(
            settings,
            self.clock,
            metrics=Metrics(),
            more_outputs=outputs,
            require_outputs=require,
            send=self.sent.append,
            on_source=lambda _: None,
            on_output=self.output_events.append,
            on_readers=lambda *_: None,
            on_listeners=lambda *_: None,
            send_sound=lambda _: None,
        )

    def shown(self) -> Shown:
        return self.pipeline.output_clock._choose(self.clock.now())[1]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.pipeline.pacer.stop()
    rig.pipeline._draw_pool.shutdown()


@contextmanager
def started(rig: Rig) -> Iterator[Rig]:
    rig.pipeline.start_outputs()
    try:
        yield rig
    finally:
        rig.pipeline.stop_outputs()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_an_output_missing_at_the_start_is_reported_and_retried_while_the_others_show_standby(
    tmp_path: Path,
) -> None:
    camera, page = Screenless("camera", missing=True), Screenless("page")
    with started(Rig(tmp_path, camera, page)) as rig:
        assert page.shown.is_set()
        assert [(event.output, event.change) for event in rig.output_events] == [
            ("camera", OutputChange.LOST)
        ]
        assert rig.pipeline.outputs_working()
        camera.missing = False
        assert camera.shown.wait(10.0)
        until(lambda: len(rig.output_events) > 1)
        assert rig.output_events[-1].change is OutputChange.BACK
    assert not camera.is_open
    assert not page.is_open


def test_a_start_without_a_working_output_ticks_and_reports_why(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Screenless("camera", missing=True))
    assert not rig.pipeline.outputs_working()
    assert rig.pipeline.outputs_trouble() == "no output is open"
    with started(rig):
        until(lambda: rig.pipeline.since_tick() < 1.0)
        assert not rig.pipeline.outputs_working()
        assert rig.pipeline.outputs_trouble() == "camera is not there (make it)"
    assert not rig.pipeline.outputs_working()


def test_only_configured_outputs_count_as_working_where_there_are_any(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    stream = {"kind": "stream", "url": str(folder / "out.mkv")}
    with started(Rig(tmp_path, Screenless("page"), output=[stream])) as rig:
        until(lambda: rig.output_events)
        assert not rig.pipeline.outputs_working()
        assert "No such file" in rig.pipeline.outputs_trouble()
        folder.mkdir()
        until(rig.pipeline.outputs_working)
        assert rig.pipeline.outputs_trouble() == ""


def test_when_an_output_event_is_emitted_the_pipeline_already_agrees(tmp_path: Path) -> None:
    camera = Screenless("camera", missing=True)
    rig = Rig(tmp_path, camera)
    seen: list[tuple[OutputChange, bool]] = []
    rig.pipeline.output_clock._kept[0]._on_event = lambda event: seen.append(
        (event.change, rig.pipeline.outputs_working())
    )
    with started(rig):
        camera.missing = False
        until(lambda: len(seen) > 1)
    assert seen == [(OutputChange.LOST, False), (OutputChange.BACK, True)]


def test_where_outputs_are_required_one_that_is_missing_ends_the_start_and_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    page, camera = Screenless("page"), Screenless("camera", missing=True)
    rig = Rig(tmp_path, page, camera, require=True)
    with pytest.raises(CameraUnavailable, match="camera is not there"):
        rig.pipeline.start_outputs()
    assert not page.is_open
    assert rig.output_events == []


def test_a_face_that_is_held_is_not_shown_again_once_the_source_is_suspended(rig: Rig) -> None:
    picture = np.full(rig.geometry.shape, 90, np.uint8)
    rig.pipeline.gate.show(1)
    rig.pipeline.gate.put(1, SwappedFrame(picture, rig.clock.now()))
    assert rig.shown() is Shown.FRESH
    rig.pipeline.gate.show(None)
    assert rig.shown() is Shown.REPEATED  # what "hold" means within a call
    rig.pipeline.suspend_source()
    assert rig.shown() is Shown.STANDBY


def test_a_face_that_arrives_while_the_source_is_being_suspended_is_not_shown_in_the_next_call(
    rig: Rig,
) -> None:
    rig.pipeline.gate.show(1)
    late = SwappedFrame(np.full(rig.geometry.shape, 90, np.uint8), rig.clock.now())
    rig.pipeline.suspend_source()
    assert not rig.pipeline.gate.put(1, late)  # the arrival thread was a moment too late
    rig.pipeline.resume_source()
    assert rig.shown() is Shown.STANDBY


def test_late_pictures_of_a_suspended_source_are_not_sent(rig: Rig) -> None:
    rig.pipeline.suspend_source()
    rig.pipeline.pacer.start()
    for _ in range(5):
        rig.pipeline.source.put(SourceFrame(black(rig.geometry), rig.clock.now()))
        time.sleep(0.05)
    assert rig.sent == []
    rig.pipeline.pacer.resume()
    rig.pipeline.source.put(SourceFrame(black(rig.geometry), rig.clock.now()))
    deadline = time.monotonic() + 2.0
    while not rig.sent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert rig.sent


def heard(rig: Rig) -> int:
    """Return how many blocks of the user's own sound the relay got so far."""
    sound = rig.pipeline.sound
    assert sound is not None
    return sound.status({}).blocks["captured"]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="a voice of its own needs ffmpeg")
def test_a_voice_of_its_own_is_heard_until_it_is_not_wanted_whatever_the_source_does(
    tmp_path: Path,
) -> None:
    silent = write(tmp_path / "silent.mp4", Sounding(1.0, with_sound=False))
    voice = write(tmp_path / "voice.mkv", Sounding(2.0, codec="pcm_s16le"))
    rig = Rig(tmp_path, source={"url": str(silent)}, sound={"source": str(voice)})
    with started(rig):
        rig.pipeline.start_source()
        until(lambda: heard(rig) > 20)
        rig.pipeline.suspend_source()
        before = heard(rig)
        until(lambda: heard(rig) > before + 20)
        rig.pipeline.steer_voice(wanted=False)
        until(lambda: not psutil.Process().children())
        rig.pipeline.steer_voice(wanted=True)
        before = heard(rig)
        until(lambda: heard(rig) > before + 20)
        rig.pipeline.stop_source()


def test_without_a_source_of_sound_none_is_read(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", Sounding(1.0))
    rig = Rig(tmp_path, source={"url": str(clip)}, sound={"source": "none"})
    with started(rig):
        rig.pipeline.start_source()
        until(lambda: rig.pipeline.reader.counters.frames > 10)
        rig.pipeline.stop_source()
    assert heard(rig) == 0
    assert rig.pipeline.voice is None


def test_the_sources_own_sound_is_heard(tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", Sounding(1.0))
    rig = Rig(tmp_path, source={"url": str(clip)}, sound={})
    with started(rig):
        rig.pipeline.start_source()
        until(lambda: heard(rig) > 20)
        rig.pipeline.stop_source()
