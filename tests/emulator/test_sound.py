"""The sound that players get from the emulator: none, unless a fault says so."""

import asyncio
import itertools
import time
from typing import Any

import numpy as np
import pytest

from relayd.emulator.faults import FaultBoard
from relayd.emulator.sound import SoundReturn
from relayd.errors import UsageError
from relayd.media.frames import Geometry, black
from relayd.rtc.webrtc.engine import PeerState
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples, silence
from tests.support.clock import FakeClock

LOUD = 3000


def block(number: int) -> Samples:
    return np.full(BLOCK, number, np.int16)


class FakePeer:
    state = PeerState.CONNECTED

    def __init__(self) -> None:
        self.loss = 0.0

    def push_sound(self, samples: Samples, at: float) -> None:
        """Unused: the tests take blocks themselves."""

    def lose_sound(self, share: float) -> None:
        self.loss = share


def returned(board: FaultBoard, blocks: int = 100) -> tuple[list[int | None], FakePeer]:
    """What a player gets each 10 ms while a publisher sends blocks 0, 1, 2 and so on."""
    peer = FakePeer()
    way, got = SoundReturn("one", peer, board), []
    for number in range(blocks):
        now = 100 + number * BLOCK_SECONDS
        way.put(block(number), now)
        samples = way.take(now + 0.001)
        got.append(None if samples is None else int(samples[0]))
    return got, peer


def test_by_default_nothing_comes_back() -> None:
    got, _ = returned(FaultBoard(FakeClock()))
    assert got == [None] * 100


def test_echo_returns_each_block_in_order() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "echo"})
    got, peer = returned(board)
    assert got[1:] == list(range(1, 100))
    assert peer.loss == 0


def test_echo_comes_back_beside_its_picture() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "echo"})
    delay = [0.2]
    way = SoundReturn("one", FakePeer(), board, lambda: delay[0])

    def take(number: int) -> int | None:
        way.put(block(number), 100 + number * BLOCK_SECONDS)
        samples = way.take(100 + number * BLOCK_SECONDS + 0.001)
        return None if samples is None else int(samples[0])

    assert [take(number) for number in range(100)][50:] == list(range(30, 80))
    delay[0] = 0.22  # less than pictures vary
    assert [take(number) for number in range(100, 120)] == list(range(80, 100))
    delay[0] = 0.1
    sooner = [take(number) for number in range(120, 160)]
    assert sooner[20:] == list(range(129, 149))  # as it was, but for the few that may wait


def test_sound_that_came_after_its_picture_waits_so_much_less() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "echo"})
    way = SoundReturn("one", FakePeer(), board, lambda: 0.2, behind=0.05)
    got = []
    for number in range(100):
        way.put(block(number), 100 + number * BLOCK_SECONDS)
        samples = way.take(100 + number * BLOCK_SECONDS + 0.001)
        got.append(None if samples is None else int(samples[0]))
    assert got[50:] == list(range(35, 85))


def test_late_returns_each_block_after_the_delay() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "late", "delay": 0.3})
    got, _ = returned(board)
    assert got[:29] == [None] * 29
    assert got[40:] == list(range(10, 70))


def test_lossy_echoes_over_a_path_that_loses_packets() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "lossy", "loss": 0.25})
    got, peer = returned(board)
    assert got[1:] == list(range(1, 100))
    assert peer.loss == 0.25


def test_a_tone_comes_back_whatever_is_sent() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "tone"})
    way = SoundReturn("one", FakePeer(), board)
    blocks = [way.take(100 + number * BLOCK_SECONDS) for number in range(100)]
    wave = np.concatenate([samples for samples in blocks if samples is not None])
    assert len(wave) == RATE
    assert np.argmax(np.abs(np.fft.rfft(wave))) == 440  # 1 s: a line per Hz


def test_the_newest_fault_counts_and_applies_to_its_session_alone() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "sound", "kind": "echo"})
    board.set({"fault": "sound", "kind": "none", "session": "one"})
    assert returned(board)[0] == [None] * 100
    assert board.sound_of("two").kind == "echo"


def test_what_was_sent_before_an_echo_is_not_returned_by_it() -> None:
    board = FaultBoard(FakeClock())
    way = SoundReturn("one", FakePeer(), board)
    way.put(block(7), 100.0)
    assert way.take(100.01) is None
    board.set({"fault": "sound", "kind": "echo"})
    assert way.take(100.02) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "loud"}, "kind is one of none, echo, tone, late, lossy"),
        ({"loss": 1.5}, "loss is a share"),
        ({"delay": 60.0}, "delay is at most 10 s"),
    ],
)
def test_an_invalid_fault_of_sound_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        FaultBoard(FakeClock()).set({"fault": "sound", **options})


def beeps(number: int) -> Samples:
    """50 ms of 1 kHz each 250 ms."""
    if number % 25 >= 5:
        return silence()
    at = number * BLOCK + np.arange(BLOCK)
    return (np.sin(2 * np.pi * 1000 * at / RATE) * 12000).astype(np.int16)


async def until_heard(player: Any, seconds: float, within: float = 10.0) -> np.ndarray:
    """Wait until a player heard so much sound from now on, and return it."""
    player.blocks.clear()
    async with asyncio.timeout(within):
        while len(player.blocks) * BLOCK_SECONDS < seconds:  # noqa: ASYNC110  a plain list
            await asyncio.sleep(0.02)
    return np.concatenate([samples for _, samples in player.blocks])


async def until_silent(player: Any, within: float = 10.0) -> None:
    """Wait until a player hears nothing for a while."""
    async with asyncio.timeout(within):
        while player.blocks:
            player.blocks.clear()
            await asyncio.sleep(0.3)


async def test_players_get_sound_while_a_fault_returns_it(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    picture = black(Geometry(320, 240))
    publisher = await emulator.publish(session, picture, sound=True)
    player = await emulator.play(session, sound=True)
    publisher.speak(beeps)
    await player.picture_after(0.0)
    assert player.peer.has_sound
    assert player.blocks == []

    fault = await emulator.fault(fault="sound", kind="echo")
    assert np.abs(await until_heard(player, 0.6)).max() > LOUD
    seen = await emulator.session(session["_id"])
    assert seen["sound_in"] > 50
    assert seen["sound_out"] > 50

    await emulator.http.request("DELETE", f"{emulator.url}/emulator/faults/{fault['id']}")
    await until_silent(player)

    await emulator.fault(fault="sound", kind="lossy", loss=0.2)
    assert np.abs(await until_heard(player, 0.6)).max() > LOUD
    await player.picture_after(time.monotonic())
    await publisher.close()
    await player.close()


async def test_a_tone_is_returned_to_who_publishes_no_sound(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, black(Geometry(320, 240)))
    assert not publisher.peer.has_sound
    player = await emulator.play(session, sound=True)
    await emulator.fault(fault="sound", kind="tone")
    wave = await until_heard(player, 0.5)
    hertz = np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave))))) * RATE / len(wave)
    assert hertz == pytest.approx(440, abs=5)
    await publisher.close()
    await player.close()


async def test_a_player_that_takes_no_sound_gets_pictures_alone(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    await emulator.fault(fault="sound", kind="tone")
    publisher = await emulator.publish(session, black(Geometry(320, 240)), sound=True)
    player = await emulator.play(session)
    publisher.speak(beeps)
    await player.picture_after(0.0)
    assert not player.peer.has_sound
    assert (await emulator.session(session["_id"]))["sound_out"] == 0
    await publisher.close()
    await player.close()


def lags(player: Any, publisher: Any, after: float) -> list[float]:
    """Seconds from the push of each beep until the player got it, for those got after a time."""
    got = [(at, samples) for at, samples in player.blocks if at > after]
    onsets = [
        at + int(np.argmax(np.abs(samples) > LOUD)) / RATE
        for (_, before), (at, samples) in itertools.pairwise(got)
        if np.abs(samples).max() > LOUD and np.abs(before).max() <= LOUD
    ]
    return [(onset - publisher.spoke_at) % 0.25 for onset in onsets]


async def test_the_delay_of_an_echo_is_back_two_seconds_after_a_lossy_path(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, black(Geometry(320, 240)), sound=True)
    player = await emulator.play(session, sound=True)
    await emulator.fault(fault="sound", kind="echo")
    publisher.speak(beeps)
    await until_heard(player, 0.2)
    begin = time.monotonic()
    await asyncio.sleep(1)
    before = np.median(lags(player, publisher, begin))
    lossy = await emulator.fault(fault="sound", kind="lossy", loss=0.2)
    await asyncio.sleep(1.5)
    await emulator.http.request("DELETE", f"{emulator.url}/emulator/faults/{lossy['id']}")
    whole_again = time.monotonic() + 2
    await asyncio.sleep(3)
    assert np.median(lags(player, publisher, whole_again)) < before + 0.1  # aiortc: 0.2
    await publisher.close()
    await player.close()
