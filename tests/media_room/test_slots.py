import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from relayd.media.frames import Geometry
from relayd.media.slots import LatestSlot, SharedSlot

SIZE = Geometry(640, 480)


def test_the_newest_item_wins_and_numbers_show_what_was_missed() -> None:
    slot: LatestSlot[str] = LatestSlot()
    assert slot.latest() == (0, None)
    for item in "abc":
        slot.put(item)
    assert slot.latest() == (3, "c")
    assert slot.wait_newer(1, 0) == (3, "c")
    assert slot.wait_newer(3, 0) == (3, None)


def test_a_cleared_item_is_never_returned_and_numbering_continues() -> None:
    slot: LatestSlot[str] = LatestSlot()
    slot.put("a")
    slot.clear()
    assert slot.latest() == (1, None)
    slot.put("b")
    assert slot.wait_newer(1, 0) == (2, "b")


def test_a_put_sets_the_event_of_a_reader_that_waits_for_other_things_as_well() -> None:
    slot: LatestSlot[str] = LatestSlot()
    events = threading.Event(), threading.Event()
    for event in events:
        slot.notify(event)
    assert not any(event.is_set() for event in events)
    slot.put("a")
    assert all(event.is_set() for event in events)
    events[0].clear()
    slot.clear()
    assert not events[0].is_set()


def test_a_waiting_reader_wakes_on_put() -> None:
    slot: LatestSlot[str] = LatestSlot()
    threading.Timer(0.05, slot.put, ("a",)).start()
    assert slot.wait_newer(0, 5) == (1, "a")


@pytest.fixture
def shared() -> Iterator[SharedSlot]:
    slot = SharedSlot.create(SIZE, "test")
    yield slot
    slot.close()


def test_a_shared_picture_is_read_once_with_its_stamp(shared: SharedSlot) -> None:
    into = np.empty(SIZE.shape, np.uint8)
    assert shared.read(into, 0) is None
    assert not shared.wait(0)
    shared.write(np.full(SIZE.shape, 7, np.uint8), 12.5)
    assert shared.wait(1)
    assert not shared.wait(0)
    assert shared.read(into, 0) == (1, 12.5)
    assert (into == 7).all()
    assert shared.read(into, 1) is None


def test_the_doorbell_signals_once_for_several_pictures(shared: SharedSlot) -> None:
    for shade in (1, 2, 3):
        shared.write(np.full(SIZE.shape, shade, np.uint8), float(shade))
    assert shared.wait(0)
    assert not shared.wait(0)
    into = np.empty(SIZE.shape, np.uint8)
    assert shared.read(into, 0) == (3, 3.0)


def test_two_mappings_of_one_slot_show_the_same_picture(shared: SharedSlot) -> None:
    other = SharedSlot(SIZE, *(os.dup(fd) for fd in shared.fds))
    shared.write(np.full(SIZE.shape, 9, np.uint8), 1.0)
    into = np.empty(SIZE.shape, np.uint8)
    assert other.read(into, 0) == (1, 1.0)
    assert (into == 9).all()
    other.close()


WRITER = """
import sys, time
import numpy as np
from relayd.media.frames import Geometry
from relayd.media.slots import SharedSlot

size = Geometry(640, 480)
slot = SharedSlot(size, *map(int, sys.argv[1:3]))
pictures = [np.full(size.shape, shade, np.uint8) for shade in range(251)]
end, number = time.monotonic() + 2.0, 0
while time.monotonic() < end:
    number += 1
    slot.write(pictures[number % 251], float(number))
print(number)
"""


def test_no_picture_is_ever_torn_between_two_processes_at_full_speed(shared: SharedSlot) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, *map(str, shared.fds)],
        pass_fds=shared.fds,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        into = np.empty(SIZE.shape, np.uint8)
        number = reads = 0
        deadline = time.monotonic() + 10
        while writer.poll() is None and time.monotonic() < deadline:
            if not shared.wait(0.1):
                continue
            got = shared.read(into, number)
            if got is None:
                continue
            assert got[0] > number
            number = got[0]
            reads += 1
            assert got[1] == float(number)
            assert (into == number % 251).all(), f"torn at {number}"
        assert writer.stdout
        written = int(writer.stdout.read())
    assert written > 1000
    assert reads > 100


def test_pictures_that_processes_share_are_left_out_of_core_dumps() -> None:
    slot = SharedSlot.create(Geometry(64, 48), "dumped")
    try:
        mapped = Path("/proc/self/smaps").read_text().partition("memfd:relayd-dumped")[2]
        flags = next(line for line in mapped.splitlines() if line.startswith("VmFlags:"))
        assert "dd" in flags.split()
    finally:
        slot.close()
