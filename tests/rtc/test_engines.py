"""What every WebRTC engine promises, against itself and against the other one."""

import asyncio
import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from relayd.errors import JoinRefused
from relayd.media.frames import I420, Geometry
from relayd.rtc.webrtc import engines
from relayd.rtc.webrtc.engine import LARGEST_SDP, EngineName, Peer, PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples

if TYPE_CHECKING:
    from tests.rtc.conftest import Kit

SIZE = Geometry(320, 240)
NAMES: tuple[EngineName, ...] = ("aiortc", "libwebrtc")
NOTICED = 5.0
"""s in which a peer that closes is noticed; it takes tens of milliseconds."""
LOSS_NOTICED = 12.0
"""s in which one that vanishes is noticed; it takes up to 4."""
TONE = (np.sin(2 * np.pi * 1000 * np.arange(BLOCK) / RATE) * 12000).astype(np.int16)


def param(*names: EngineName) -> object:
    missing = "libwebrtc" in names and find_spec("wrtc") is None
    reason = "wrtc is not installed (the extra libwebrtc)"
    return pytest.param(*names, marks=pytest.mark.skipif(missing, reason=reason))


each = pytest.mark.parametrize("engine", [param(name) for name in NAMES])
crosswise = pytest.mark.parametrize(
    ("sends", "receives"), [param(one, other) for one in NAMES for other in NAMES]
)
both_ways = pytest.mark.parametrize("by_receiver", [False, True], ids=["WHIP", "WHEP"])


class Pair:
    """A sender and a receiver in one loop, each of any engine."""

    def __init__(
        self,
        sends: EngineName,
        receives: EngineName,
        *,
        size: Geometry = SIZE,
        sends_sound: bool = False,
        hears: bool = False,
        kbit: int = 2000,
    ) -> None:
        self.states: dict[str, list[PeerState]] = {"sender": [], "receiver": []}
        self.pictures: list[tuple[I420, float]] = []
        self.heard: list[tuple[Samples, float]] = []
        self.sender: Peer = engines.load(sends)(
            geometry=size,
            fps=20,
            bitrate_kbit=kbit,
            on_state=self.states["sender"].append,
            sends_sound=sends_sound,
        )
        self.receiver: Peer = engines.load(receives)(
            geometry=size,
            fps=20,
            bitrate_kbit=kbit,
            on_state=self.states["receiver"].append,
            on_picture=lambda picture, at: self.pictures.append((picture, at)),
            on_sound=(lambda samples, at: self.heard.append((samples, at))) if hears else None,
        )

    async def connect(
        self, change: Callable[[str], str] = str, *, by_receiver: bool = False
    ) -> str:
        """Connect; returns the offer."""
        if by_receiver:
            offer = await self.receiver.offer_receiving()
            await self.receiver.accept_answer(change(await self.sender.answer(offer)))
        else:
            offer = await self.sender.offer_sending()
            await self.sender.accept_answer(change(await self.receiver.answer(offer)))
        await until(lambda: self.sender.state is self.receiver.state is PeerState.CONNECTED)
        return offer

    async def show(self, picture: I420, condition: Callable[[], object]) -> None:
        """Push a picture at 20 fps until the condition holds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it never came to hold"
            self.sender.push(picture, time.monotonic())
            await asyncio.sleep(0.05)

    async def speak(self, seconds: float) -> None:
        begin = time.monotonic()
        for number in range(round(seconds / BLOCK_SECONDS)):
            at = begin + number * BLOCK_SECONDS
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            self.sender.push_sound(TONE, at)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sender.close()
        await self.receiver.close()


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - callbacks, no events
            await asyncio.sleep(0.01)


def is_loud(blocks: list[tuple[Samples, float]]) -> bool:
    return any(np.abs(samples).max() > 4000 for samples, _ in blocks[-50:])


@both_ways
@crosswise
async def test_pictures_arrive_as_they_were_sent_whoever_offers(
    kit: "Kit", sends: EngineName, receives: EngineName, *, by_receiver: bool
) -> None:
    async with Pair(sends, receives) as pair:
        offer = await pair.connect(by_receiver=by_receiver)
        assert "m=audio" not in offer
        assert ("a=recvonly" if by_receiver else "a=sendonly") in offer
        picture = kit.picture(SIZE)
        await pair.show(picture, lambda: len(pair.pictures) > 10)
        arrived, at = pair.pictures[-1]
        assert arrived.shape == SIZE.shape
        assert arrived.flags.c_contiguous
        assert kit.psnr(arrived, picture) > 33
        assert abs(at - time.monotonic()) < 5


@pytest.mark.parametrize(
    "size", [Geometry(640, 480), Geometry(322, 182), Geometry(16, 16)], ids=str
)
@crosswise
async def test_the_size_is_kept_to_the_pixel(
    kit: "Kit", sends: EngineName, receives: EngineName, size: Geometry
) -> None:
    async with Pair(sends, receives, size=size) as pair:
        await pair.connect()
        picture = np.full(size.shape, 90, np.uint8)
        await pair.show(picture, lambda: len(pair.pictures) > 5)
        assert {one.shape for one, _ in pair.pictures} == {size.shape}


@each
async def test_the_array_may_be_reused_after_push(kit: "Kit", engine: EngineName) -> None:
    async with Pair(engine, "aiortc") as pair:
        await pair.connect()
        picture, wanted = kit.picture(SIZE), kit.picture(SIZE)

        def is_enough() -> bool:
            picture[:] = wanted
            return len(pair.pictures) > 5

        for _ in range(100):
            if is_enough():
                break
            pair.sender.push(picture, time.monotonic())
            picture[:] = 0
            await asyncio.sleep(0.05)
        assert all(kit.psnr(one, wanted) > 25 for one, _ in pair.pictures)


@both_ways
@crosswise
async def test_sound_arrives_where_it_is_asked_for(
    kit: "Kit", sends: EngineName, receives: EngineName, *, by_receiver: bool
) -> None:
    async with Pair(sends, receives, sends_sound=True, hears=True) as pair:
        offer = await pair.connect(by_receiver=by_receiver)
        assert offer.index("m=video") < offer.index("m=audio")
        assert "PCM" not in offer
        assert pair.sender.has_sound
        assert pair.receiver.has_sound
        pair.sender.push(kit.picture(SIZE), time.monotonic())
        await pair.speak(2.0)
        assert is_loud(pair.heard)
        assert {samples.shape for samples, _ in pair.heard} == {(BLOCK,)}
        assert {samples.dtype for samples, _ in pair.heard} == {np.dtype(np.int16)}
        steps = np.diff([at for _, at in pair.heard])
        assert np.isclose(steps, BLOCK_SECONDS, atol=1e-6).mean() > 0.8


@crosswise
async def test_silence_is_no_sound(sends: EngineName, receives: EngineName) -> None:
    async with Pair(sends, receives, sends_sound=True, hears=True) as pair:
        await pair.connect()
        await asyncio.sleep(0.5)
        assert pair.heard == []
        await pair.speak(1.0)
        assert pair.heard
        await asyncio.sleep(0.5)
        count = len(pair.heard)
        await asyncio.sleep(0.5)
        assert len(pair.heard) == count


@both_ways
@crosswise
async def test_a_side_that_wants_no_sound_answers_without(
    kit: "Kit", sends: EngineName, receives: EngineName, *, by_receiver: bool
) -> None:
    async with Pair(sends, receives, sends_sound=not by_receiver, hears=by_receiver) as pair:
        await pair.connect(by_receiver=by_receiver)
        await pair.speak(0.3)
        await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > 3)
        assert pair.heard == []


def without_its_section(answer: str) -> str:
    head, found, rest = answer.partition("m=audio ")
    assert found
    _, more, others = rest.partition("\nm=")
    return head + (f"m={others}" if more else "")


def rejected(answer: str) -> str:
    """Reject the sound as RFC 3264 §6 says: port 0, and nothing else is needed."""
    return without_its_section(answer) + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=inactive\r\n"


@both_ways
@pytest.mark.parametrize("change", [without_its_section, rejected])
@each
async def test_an_answer_without_the_offered_sound_is_no_fault(
    kit: "Kit", engine: EngineName, change: Callable[[str], str], *, by_receiver: bool
) -> None:
    other: EngineName = "aiortc"
    sends, receives = (other, engine) if by_receiver else (engine, other)
    async with Pair(sends, receives, sends_sound=True, hears=True) as pair:
        await pair.connect(change, by_receiver=by_receiver)
        assert not (pair.receiver if by_receiver else pair.sender).has_sound
        await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > 3)


@crosswise
async def test_a_key_frame_comes_when_it_is_asked_for(
    kit: "Kit", sends: EngineName, receives: EngineName
) -> None:
    asker = "sender" if receives == "libwebrtc" else "receiver"  # libwebrtc asks when it must
    async with Pair(sends, receives) as pair:
        await pair.connect()
        await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > 10)
        # aiortc tells none of VP8, which it gets from libwebrtc.
        telling = pair.receiver if receives == "libwebrtc" or sends == "aiortc" else pair.sender
        before = (await telling.stats()).key_frames
        await getattr(pair, asker).request_key_frame()
        count = len(pair.pictures)
        await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > count + 10)
        assert (await telling.stats()).key_frames > before


@crosswise
async def test_a_peer_that_closes_is_noticed(
    kit: "Kit", sends: EngineName, receives: EngineName
) -> None:
    async with Pair(sends, receives) as pair:
        await pair.connect()
        await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > 3)
        await pair.sender.close()
        await pair.sender.close()
        assert pair.states["sender"][-1] is PeerState.CLOSED
        await until(lambda: pair.receiver.state is PeerState.DISCONNECTED, NOTICED)
        pair.sender.push(kit.picture(SIZE), 1.0)  # ignored, without an error


@each
async def test_a_peer_that_vanishes_is_noticed(kit: "Kit", engine: EngineName) -> None:
    async with Pair(engine, "aiortc") as pair:
        await pair.connect()
        await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > 3)
        assert isinstance(pair.receiver, AiortcPeer)
        await pair.receiver.vanish()
        await until(lambda: pair.sender.state is PeerState.DISCONNECTED, LOSS_NOTICED)


@pytest.mark.parametrize("stage", ["made", "offered", "connecting"])
@crosswise
async def test_close_at_any_stage_leaves_nothing(
    sends: EngineName, receives: EngineName, stage: str
) -> None:
    async with Pair(sends, receives, sends_sound=True, hears=True) as pair:
        if stage != "made":
            offer = await pair.sender.offer_sending()
            if stage == "connecting":
                await pair.sender.accept_answer(await pair.receiver.answer(offer))


def held() -> list[int]:
    """How many threads and descriptors this process has."""
    return [len(list(Path("/proc/self", kind).iterdir())) for kind in ("task", "fd")]


@each
def test_connections_leave_no_thread_and_no_descriptor(kit: "Kit", engine: EngineName) -> None:
    async def once() -> None:
        async with Pair(engine, engine, sends_sound=True, hears=True) as pair:
            await pair.connect()
            await pair.show(kit.picture(SIZE), lambda: len(pair.pictures) > 1)

    asyncio.run(once())
    before = held()
    for _ in range(5):
        asyncio.run(once())
    assert kit.wait_for(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


HOSTILE = {
    "nothing": "",
    "html": "<html>it works</html>",
    "no media": "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
    "cut": "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
    "bad line": "v=0\r\nm=video x y z\r\n",
    "huge": "v=0\r\n" + "a=x\r\n" * LARGEST_SDP,
    "zero bytes": "v=0\0\0\0",
}


@pytest.mark.parametrize("sdp", HOSTILE.values(), ids=HOSTILE)
@each
async def test_a_hostile_description_is_refused_with_a_message(
    engine: EngineName, sdp: str
) -> None:
    async with Pair(engine, engine) as pair:
        with pytest.raises(JoinRefused) as offered:
            await pair.receiver.answer(sdp)
        await pair.sender.offer_sending()
        with pytest.raises(JoinRefused) as answered:
            await pair.sender.accept_answer(sdp)
        for refusal in (offered, answered):
            assert "SDP" in str(refusal.value)
            assert len(str(refusal.value)) < 300


@each
async def test_only_this_machines_addresses_are_offered(engine: EngineName) -> None:
    async with Pair(engine, engine) as pair:
        offer = await pair.sender.offer_sending()
        candidates = [line for line in offer.splitlines() if line.startswith("a=candidate")]
        assert candidates
        assert all(" typ host" in line for line in candidates)
        if len({line.split()[4] for line in candidates}) > 1:
            assert not any(" 127.0.0.1 " in line for line in candidates)


@each
async def test_one_candidate_that_no_engine_knows_does_no_harm(
    kit: "Kit", engine: EngineName
) -> None:
    def with_odd_candidate(answer: str) -> str:
        return answer.replace("a=candidate:", "a=candidate:x y z\r\na=candidate:", 1)

    async with Pair(engine, "aiortc") as pair:
        await pair.connect(with_odd_candidate)
        await pair.show(kit.picture(SIZE), lambda: pair.pictures)


@crosswise
async def test_the_figures_say_how_the_connection_does(
    kit: "Kit", sends: EngineName, receives: EngineName
) -> None:
    async with Pair(sends, receives) as pair:
        await pair.connect()
        await pair.sender.stats()
        end = time.monotonic() + 3.2  # reports come every 0.5 to 1.5 s
        await pair.show(kit.picture(SIZE), lambda: time.monotonic() > end)
        sent, received = await pair.sender.stats(), await pair.receiver.stats()
        assert sent.codec == received.codec != ""
        assert sent.packets >= received.packets > 30
        assert sent.bytes > 1000
        assert sent.bitrate_kbit > 0
        assert sent.target_kbit > 100
        assert received.packets_lost == 0
        assert 0 <= received.jitter < 0.1
        assert sent.round_trip is not None
        assert 0 <= sent.round_trip < 0.5
        assert sent.pictures > 40
        assert received.pictures > 40
        for path in (sent.path, received.path):
            assert re.fullmatch("(host|prflx)/(host|prflx) udp", path)
