"""Sound between the relay and its worker: in order, with its time, and only where asked for."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from relayd.rtc.link import LinkEventKind, LinkTarget
from relayd.rtc.sound import RING_SECONDS
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, OwnSound, ReturnedSound
from tests.rtc.strange import StrangeWorker

if TYPE_CHECKING:
    from tests.rtc.conftest import Kit

NOWHERE = SimpleNamespace(url="http://127.0.0.1:9")
"""The server that a target names; these links do not ask it."""


@pytest.fixture
def heard() -> list[ReturnedSound]:
    return []


@pytest.fixture
def start(heard: list[ReturnedSound]) -> Iterator[Callable[..., StrangeWorker]]:
    started: list[StrangeWorker] = []

    def start(way: str, **changes: Any) -> StrangeWorker:
        options: dict[str, Any] = {"on_sound": heard.append, "sound": True}
        worker = StrangeWorker(way, **options | changes)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.stop(1.0)
        assert not worker.alive


def target(kit: "Kit", **changes: object) -> LinkTarget:
    return kit.target(NOWHERE, publish_sound=True, return_sound=True, **changes)


def block(number: int) -> OwnSound:
    return OwnSound(np.full(BLOCK, number, np.int16), number * BLOCK_SECONDS)


def join(worker: StrangeWorker, to: LinkTarget, kit: "Kit") -> None:
    worker.join(to)
    assert kit.wait_for(lambda: LinkEventKind.JOINED in worker.kinds())


def speak(worker: StrangeWorker, first: int, heard: list[ReturnedSound], kit: "Kit") -> int:
    """Publish blocks from `first` on, each answered before the next; returns the next number.

    The first ones may come before the link listens.
    """
    number = first - 1

    def is_heard() -> bool:
        nonlocal number
        number += 1
        worker.publish_sound(block(number))
        return bool(heard)

    def is_answered() -> bool:
        return bool(heard[-1].samples[0] == -number)

    assert kit.wait_for(is_heard)
    for _ in range(10):
        number += 1
        worker.publish_sound(block(number))
        assert kit.wait_for(is_answered)
    return number + 1


def test_each_block_goes_to_the_link_and_back_in_order_with_its_time(
    start: Callable[..., StrangeWorker], heard: list[ReturnedSound], kit: "Kit"
) -> None:
    worker = start("echo")
    join(worker, target(kit), kit)
    speak(worker, 1, heard, kit)
    numbers = [-int(sound.samples[0]) for sound in heard]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for sound in heard:
        assert set(sound.samples) == {sound.samples[0]}
        assert sound.samples.shape == (BLOCK,)
        assert sound.samples.dtype == np.int16
        assert sound.at == pytest.approx(-sound.samples[0] * BLOCK_SECONDS)
    assert worker.sound_missed == 0


def test_a_target_that_publishes_no_sound_gets_none(
    start: Callable[..., StrangeWorker], heard: list[ReturnedSound], kit: "Kit"
) -> None:
    worker = start("echo")
    join(worker, target(kit), kit)
    number = speak(worker, 1, heard, kit)
    assert worker.leave(5.0)
    worker.events.clear()
    heard.clear()
    join(worker, kit.target(NOWHERE), kit)
    for unheard in range(number, number + 5):
        worker.publish_sound(block(unheard))
    assert worker.leave(5.0)
    worker.events.clear()
    join(worker, target(kit), kit)
    after = speak(worker, number + 5, heard, kit)
    numbers = [-int(sound.samples[0]) for sound in heard]
    assert numbers[0] >= number + 5
    assert numbers[-1] == after - 1


def test_a_callback_that_is_too_slow_loses_the_oldest_blocks_and_they_are_counted(
    start: Callable[..., StrangeWorker], kit: "Kit"
) -> None:
    heard: list[ReturnedSound] = []
    go_on = Event()

    def take(sound: ReturnedSound) -> None:
        heard.append(sound)
        go_on.wait(20)

    worker = start("echo", on_sound=take)
    join(worker, target(kit), kit)
    number = 0
    while not heard:
        worker.publish_sound(block(number := number + 1))
        time.sleep(0.01)
    last = number + 3 * round(RING_SECONDS / BLOCK_SECONDS)
    for later in range(number + 1, last + 1):
        worker.publish_sound(block(later))
        time.sleep(0.005)  # the worker's own reader is not meant to be too slow
    go_on.set()
    assert kit.wait_for(lambda: heard[-1].samples[0] == -last)
    assert worker.sound_missed > 0
    numbers = [-int(sound.samples[0]) for sound in heard]
    assert numbers == sorted(numbers)
    assert len(heard) <= last - worker.sound_missed


def test_a_library_that_fails_at_a_block_of_sound_ends_the_worker(
    start: Callable[..., StrangeWorker], kit: "Kit"
) -> None:
    worker = start("muffled")
    join(worker, target(kit), kit)

    def is_over() -> bool:
        worker.publish_sound(block(1))
        return LinkEventKind.DIED in worker.kinds()

    assert kit.wait_for(is_over)


def test_a_worker_without_sound_has_no_rings(
    start: Callable[..., StrangeWorker], tmp_path: Path, kit: "Kit"
) -> None:
    def memories(**changes: Any) -> set[str]:
        worker = start("hang", notes=tmp_path / f"notes-{len(changes)}", **changes)
        assert kit.wait_for((tmp_path / f"notes-{len(changes)}").exists)
        mapped = {each.path.split(" ")[0] for each in psutil.Process(worker.pid).memory_maps()}
        return {path for path in mapped if path.startswith("/memfd:relayd-")}

    pictures = {"/memfd:relayd-outbound", "/memfd:relayd-inbound"}
    sounds = {"/memfd:relayd-outbound-sound", "/memfd:relayd-inbound-sound"}
    assert memories(sound=False, on_sound=None) == pictures
    assert memories() == pictures | sounds
