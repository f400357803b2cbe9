import json
import socket
import threading
from collections.abc import Iterator

import pytest

from relayd.rtc.link import LinkEvent, LinkEventKind, LinkStats
from relayd.rtc.outbox import MOST_WAITING, Outbox

TIMEOUT = 10.0
LOST = LinkEvent(LinkEventKind.LOST)
DEGRADED = LinkEvent(LinkEventKind.DEGRADED, "x" * 900)


class Reader:
    """A parent that reads only when allowed."""

    def __init__(self) -> None:
        self.events: list[LinkEvent] = []
        self.may_read = threading.Event()
        self.may_read.set()

    def send(self, event: LinkEvent) -> None:
        assert self.may_read.wait(TIMEOUT)
        self.events.append(event)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def outbox(reader: Reader) -> Iterator[Outbox]:
    outbox = Outbox(reader.send)
    outbox.start()
    yield outbox
    reader.may_read.set()
    assert outbox.close(TIMEOUT)


def test_events_are_sent_in_order(outbox: Outbox, reader: Reader) -> None:
    events = [LinkEvent(LinkEventKind.DEGRADED, str(number)) for number in range(50)]
    for event in events:
        outbox.put(event)
    assert outbox.close(TIMEOUT)
    assert reader.events == events


def test_of_waiting_statistics_only_the_newest_is_sent(outbox: Outbox, reader: Reader) -> None:
    reader.may_read.clear()
    outbox.put(DEGRADED)
    for sent in range(1000):
        outbox.put(LinkEvent(LinkEventKind.STATS, stats=LinkStats(sent=sent)))
    outbox.put(LOST)
    reader.may_read.set()
    assert outbox.close(TIMEOUT)
    assert reader.events[-1] == LOST
    assert reader.events[-2].stats == LinkStats(sent=999)
    assert len(reader.events) == 3


def test_no_end_of_a_link_is_dropped_while_the_parent_does_not_read(
    outbox: Outbox, reader: Reader
) -> None:
    reader.may_read.clear()
    outbox.put(LOST)
    for _ in range(MOST_WAITING * 3):
        outbox.put(DEGRADED)
    outbox.put(LinkEvent(LinkEventKind.REFUSED))
    reader.may_read.set()
    assert outbox.close(TIMEOUT)
    assert LOST in reader.events
    assert reader.events[-1].kind is LinkEventKind.REFUSED
    assert len(reader.events) <= MOST_WAITING + 1


def test_a_parent_that_does_not_read_causes_no_wait_and_loses_no_end() -> None:
    """As between the processes: what a full socket cannot take waits in the outbox."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        outbox = Outbox(lambda event: ours.sendall(json.dumps(event.to_json()).encode()))
        outbox.start()
        for _ in range(2000):
            outbox.put(DEGRADED)
        outbox.put(LOST)
        assert not outbox.close(0.05)  # the outbox waits for the parent, we do not
        kinds: list[str] = []
        while not kinds or kinds[-1] != "lost":
            kinds.append(json.loads(theirs.recv(65536))["kind"])
        assert outbox.close(TIMEOUT)


def test_sending_ends_when_the_parent_is_gone() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        theirs.close()
        outbox = Outbox(lambda event: ours.sendall(json.dumps(event.to_json()).encode()))
        outbox.start()
        outbox.put(LOST)
        assert outbox.close(TIMEOUT)
