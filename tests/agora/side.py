"""The relay's side of the link: a worker, and its events and pictures."""

import time
from collections.abc import Callable

import numpy as np

from relayd.media.frames import I420, Geometry, SourceFrame, SwappedFrame
from relayd.rtc.kinds import worker_environment
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from relayd.rtc.process import RtcWorker
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, OwnSound, ReturnedSound
from tests.agora.cloud import Cloud, MemberSeen

GEOMETRY = Geometry(320, 240)
APP, TOKEN = "an-app-id", "a-token-of-the-tests"
TIMEOUT = 10.0
"""s; awaited events take far less than one."""


def picture(shade: int = 90) -> I420:
    """A ramp with blocks of colour, no two regions alike."""
    drawn = np.full(GEOMETRY.shape, 128, np.uint8)
    drawn[: GEOMETRY.height] = np.linspace(shade, 200, GEOMETRY.width).astype(np.uint8)
    drawn[: GEOMETRY.height // 2] += 20
    drawn[GEOMETRY.height :, :60] = 90
    return drawn


def wait_for(what: str, done: Callable[[], object], within: float = TIMEOUT) -> None:
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {within:g} s"
        time.sleep(0.01)


def block(number: int) -> OwnSound:
    """A block of sound that names itself: its samples count up from its number."""
    samples = (np.arange(BLOCK) + number).astype(np.int16)
    return OwnSound(samples, number * BLOCK_SECONDS)


class Side:
    """The relay's side of a worker: pumps pictures, records events and received pictures."""

    def __init__(self, target: LinkTarget) -> None:
        self.target = target
        self.events: list[LinkEvent] = []
        self.frames: list[SwappedFrame] = []
        self.sounds: list[ReturnedSound] = []
        self.worker = RtcWorker(
            GEOMETRY,
            kind="agora",
            environment=worker_environment("agora"),
            on_event=self.events.append,
            on_picture=self.frames.append,
            on_sound=self.sounds.append,
            sound=target.publish_sound or target.return_sound,
        )

    def kinds(self) -> list[LinkEventKind]:
        return [event.kind for event in self.events if event.kind is not LinkEventKind.STATS]

    def pump_until(
        self, what: str, done: Callable[[], object], within: float = TIMEOUT, fps: float = 40.0
    ) -> None:
        """Publish pictures until `done()` holds."""
        deadline = time.monotonic() + within
        while not done():
            assert time.monotonic() < deadline, f"{what}: not within {within:g} s; {self.events}"
            self.worker.publish(SourceFrame(picture(), time.monotonic()))
            time.sleep(1 / fps)

    def speak_until(
        self, what: str, done: Callable[[], object], within: float = TIMEOUT, first: int = 1
    ) -> int:
        """Publish pictures, and a block of sound each 10 ms, until `done()` holds.

        Returns the number of the next block.
        """
        deadline = time.monotonic() + within
        number, due = first, time.monotonic()
        while not done():
            assert time.monotonic() < deadline, f"{what}: not within {within:g} s; {self.events}"
            if number % 3 == 0:
                self.worker.publish(SourceFrame(picture(), time.monotonic()))
            self.worker.publish_sound(block(number))
            number += 1
            due = max(due + BLOCK_SECONDS, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        return number

    def pump_for(self, seconds: float) -> None:
        """Publish pictures for so long."""
        end = time.monotonic() + seconds
        self.pump_until("time", lambda: time.monotonic() > end)

    def wait_for_event(self, kind: LinkEventKind, within: float = TIMEOUT) -> LinkEvent:
        """Publish until an event of this kind comes; returns the newest."""
        self.pump_until(kind.value, lambda: kind in self.kinds(), within)
        return [event for event in self.events if event.kind is kind][-1]

    def live(self) -> None:
        self.worker.join(self.target)
        self.wait_for_event(LinkEventKind.FIRST_PICTURE)

    def new_frame(self) -> I420:
        """Publish until a picture comes that had not come yet."""
        self.frames.clear()
        self.pump_until("a picture", lambda: self.frames)
        return self.frames[-1].i420


def member(cloud: Cloud) -> MemberSeen:
    return cloud.members("1")[-1]


def names_of(cloud: Cloud, side: Side) -> list[str]:
    return [call.name for call in cloud.calls(side.worker.pid or 0)]


def stop_and_collect_calls(cloud: Cloud, side: Side) -> None:
    """Stop the worker: the hub gets calls late, but all before the end of their process."""
    side.worker.stop(3.0)
    wait_for("the hub has all calls", lambda: not cloud.services()[-1].running)
