"""The media side of a relay without a source or an output of its own: what rest means to it."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from relayd.clock import MonotonicClock
from relayd.configfile import load_tree
from relayd.control.metrics import Metrics
from relayd.frames import SourceFrame, SwappedFrame, black
from relayd.output.screen import Shown
from relayd.relay.pipeline import Pipeline


class Rig:
    """A pipeline that shows nowhere, and what it sent."""

    def __init__(self, folder: Path) -> None:
        self.sent: list[SourceFrame] = []
        settings = load_tree(
            {
                "face": {"image": "http://service.example/a.png"},
                "privacy": {"fallback": "hold"},
                "output": [],
                "state": {"directory": str(folder)},
            }
        )
        self.clock = MonotonicClock()
        self.geometry = settings.video.geometry
        self.pipeline = Pipeline(
            settings,
            self.clock,
            metrics=Metrics(),
            more_outputs=(),
            send=self.sent.append,
            on_source=lambda _: None,
            on_output=lambda _: None,
            on_readers=lambda *_: None,
        )

    def shown(self) -> Shown:
        return self.pipeline.screen._choose(self.clock.now())[1]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.pipeline.pacer.stop()
    rig.pipeline._studio.shutdown()


def test_a_face_that_is_held_is_not_shown_again_once_the_source_rests(rig: Rig):
    picture = np.full(rig.geometry.shape, 90, np.uint8)
    rig.pipeline.show(SwappedFrame(picture, rig.clock.now()))
    assert rig.shown() is Shown.FRESH
    rig.pipeline.forget()
    assert rig.shown() is Shown.REPEATED  # what "hold" means within a call
    rig.pipeline.rest_source()
    assert rig.shown() is Shown.STANDBY


def test_a_face_that_arrives_while_the_source_goes_to_rest_is_not_shown_in_the_next_call(rig: Rig):
    rig.pipeline.gate.show(1)
    late = SwappedFrame(np.full(rig.geometry.shape, 90, np.uint8), rig.clock.now())
    rig.pipeline.rest_source()
    assert not rig.pipeline.gate.put(1, late)  # the arrival thread was a moment too late
    rig.pipeline.wake_source()
    assert rig.shown() is Shown.STANDBY


def test_what_a_resting_source_still_gives_is_not_sent(rig: Rig):
    rig.pipeline.rest_source()
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
