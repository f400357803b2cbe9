"""The rings of sound: in order, bounded, and indifferent to the death of either end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.sound.blocks import BLOCK, Samples
from relayd.sound.ring import SharedRing, SoundRing

PROGRAM = """
import sys
import numpy as np
from relayd.sound.blocks import BLOCK
from relayd.sound.ring import SharedRing

ring = SharedRing(*map(int, sys.argv[1:4]))
"""
WRITER = """
number = 0
while True:
    number += 1
    ring.write(np.full(BLOCK, number % 30000, np.int16), float(number))
    if number == 100:
        print("writes", flush=True)
"""
READER = """
print("reads", flush=True)
while True:
    ring.read()
"""


def block(value: int) -> Samples:
    return np.full(BLOCK, value, np.int16)


def values(ring: SharedRing) -> list[int]:
    """Read all that is there; each block must be whole and bear the time of its number."""
    found = []
    while (got := ring.read()) is not None:
        samples, at = got
        assert (samples == int(at) % 30000).all(), f"torn at {at}"
        found.append(int(at))
    return found


@pytest.fixture
def ring() -> Iterator[SharedRing]:
    made = SharedRing.create(0.2, "test")
    yield made
    made.close()


def started(program: str, ring: SharedRing) -> subprocess.Popen[str]:
    """Start a process at the other end."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program, str(ring.capacity), *map(str, ring.fds)],
        pass_fds=ring.fds,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@settings(max_examples=20)
@given(st.lists(st.integers(0, 30), max_size=20))
def test_blocks_come_in_order_and_what_is_missing_was_counted(turns: list[int]) -> None:
    ring: SoundRing[int] = SoundRing(0.1)
    shared = SharedRing.create(0.1, "turns")
    try:
        written, taken, read = 0, [], []
        for turn in turns:
            for _ in range(turn):
                written += 1
                ring.put(written)
                shared.write(block(written), float(written))
            while (item := ring.take()) is not None:
                taken.append(item)
            read += values(shared)
        for numbers in (taken, read):
            assert numbers == sorted(set(numbers))
            assert not written or numbers[-1] == written
        assert len(taken) + ring.dropped == written
        assert len(read) + shared.missed == written
    finally:
        shared.close()


def test_a_full_ring_keeps_the_newest() -> None:
    ring: SoundRing[int] = SoundRing(0.05)
    for number in range(8):
        ring.put(number)
    assert len(ring) == 5
    assert [ring.take() for _ in range(6)] == [3, 4, 5, 6, 7, None]
    assert ring.dropped == 3


def test_a_waiting_reader_gets_the_block_that_comes() -> None:
    ring: SoundRing[int] = SoundRing(0.1)
    threading.Timer(0.05, ring.put, (7,)).start()
    assert ring.take(10) == 7
    assert ring.take(0.01) is None


def test_a_cleared_ring_is_empty_and_goes_on(ring: SharedRing) -> None:
    plain: SoundRing[int] = SoundRing(0.1)
    plain.put(1)
    plain.clear()
    assert plain.take() is None
    ring.write(block(1), 1.0)
    ring.clear()
    assert ring.read() is None
    ring.write(block(2), 2.0)
    assert values(ring) == [2]


def test_one_doorbell_tells_of_several_blocks(ring: SharedRing) -> None:
    assert not ring.wait(0)
    for number in (1, 2, 3):
        ring.write(block(number), float(number))
    assert ring.wait(10)
    assert not ring.wait(0)
    assert values(ring) == [1, 2, 3]


def test_no_block_is_torn_or_out_of_order_at_full_speed(ring: SharedRing) -> None:
    writer = started(WRITER, ring)
    found: list[int] = []
    try:
        deadline = time.monotonic() + 30
        while len(found) < 3000 and time.monotonic() < deadline:
            ring.wait(0.1)
            found += values(ring)
    finally:
        killed(writer)
    assert len(found) >= 3000
    assert found == sorted(set(found))
    assert ring.missed + len(found) >= found[-1]


def test_a_killed_writer_leaves_whole_blocks_and_another_goes_on(ring: SharedRing) -> None:
    for _ in range(2):
        writer = started(WRITER, ring)
        assert writer.stdout
        assert writer.stdout.readline()
        killed(writer)
        found = values(ring)
        assert found == list(range(found[0], found[-1] + 1))
        assert len(found) == ring.capacity - 1
        assert ring.read() is None


def test_a_killed_reader_stops_no_writer_and_the_next_one_gets_only_new_sound(
    ring: SharedRing,
) -> None:
    reader = started(READER, ring)
    assert reader.stdout
    assert reader.stdout.readline()
    for number in range(1, 5000):
        if number == 1000:
            killed(reader)
        ring.write(block(number), float(number))
    other = SharedRing(ring.capacity, *(os.dup(fd) for fd in ring.fds))
    try:
        assert other.read() is None
        ring.write(block(5000), 5000.0)
        assert values(other) == [5000]
    finally:
        other.close()


def test_a_voice_is_left_out_of_core_dumps(ring: SharedRing) -> None:
    mapped = Path("/proc/self/smaps").read_text().partition("memfd:relayd-test")[2]
    flags = next(line for line in mapped.splitlines() if line.startswith("VmFlags:"))
    assert "dd" in flags.split()
