import threading
from dataclasses import dataclass
from typing import cast

from relayd.media.picture import CodedPicture
from relayd.source.paced import PACKET_COST, Arrival, PacketQueue


@dataclass
class Coded:
    """A packet of some size."""

    size: int
    is_key: bool = False


def item(media: float, size: int = 10, *, is_key: bool = False) -> Arrival:
    return Arrival(cast("CodedPicture", Coded(size, is_key)), 0.0, media)


def test_the_queue_holds_so_many_bytes_and_has_room_again_when_some_are_taken() -> None:
    queue = PacketQueue(limit=25 + 3 * PACKET_COST)
    for number in range(3):
        assert queue.wait_for_room(0)
        queue.put(item(number))
    assert not queue.wait_for_room(0)
    room = threading.Event()

    def wait() -> None:
        if queue.wait_for_room(10):
            room.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    taken = queue.take(0)
    assert taken is not None
    assert taken.media == 0
    assert room.wait(10)
    waiter.join()


def test_the_queue_ends_when_all_was_taken() -> None:
    queue = PacketQueue()
    queue.put(item(1.0))
    queue.end()
    assert not queue.has_ended
    assert queue.take(0) is not None
    assert queue.has_ended
    assert queue.take(10) is None


def test_what_is_very_late_is_left_out_up_to_the_last_key_frame_that_is_due() -> None:
    queue = PacketQueue(limit=60 + 6 * PACKET_COST)
    for number in range(8):
        queue.put(item(number, is_key=number % 3 == 0))
    assert queue.skip_to_key(5.5) == 3
    assert queue.wait_for_room(0)
    first = queue.take(0)
    assert first is not None
    assert first.media == 3
    assert queue.skip_to_key(3.5) == 0
    assert queue.skip_to_key(100) == 2


def test_a_million_empty_packets_are_not_held() -> None:
    queue = PacketQueue()
    held = 0
    while queue.wait_for_room(0):
        queue.put(item(0.0, size=1))
        held += 1
    assert held < 50_000


def test_a_sender_whose_stamps_run_ahead_of_time_has_to_wait() -> None:
    queue = PacketQueue(longest=60.0)
    held = 0
    while queue.wait_for_room(0):
        queue.put(item(2.0 * held))
        held += 1
    assert held == 31
