import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

import aioice.ice
import av
import numpy as np
import pytest

from relayd.errors import JoinRefused
from relayd.media.frames import I420, Geometry
from relayd.rtc.webrtc import engine_aiortc as peer_module
from relayd.rtc.webrtc.engine import PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer
from tests.rtc.unplugged import unplug

if TYPE_CHECKING:
    from tests.rtc.conftest import Kit

Change = Callable[[str], str]
SIZE = Geometry(320, 240)


class Pair:
    """A sender and a receiver in one loop."""

    def __init__(self) -> None:
        self.sent: list[PeerState] = []
        self.states: list[PeerState] = []
        self.pictures: list[tuple[I420, float]] = []
        self.sender = self._peer(2000, self.sent)
        self.receiver = self._peer(2000, self.states)

    def _peer(self, bitrate_kbit: int, states: list[PeerState]) -> AiortcPeer:
        return AiortcPeer(
            geometry=SIZE,
            fps=20,
            bitrate_kbit=bitrate_kbit,
            on_state=states.append,
            on_picture=lambda picture, at: self.pictures.append((picture, at)),
        )

    async def connect(self, change: Callable[[str], str] = str) -> None:
        offer = change(await self.sender.offer_sending())
        await self.sender.accept_answer(await self.receiver.answer(offer))
        await until(lambda: self.sender.state is self.receiver.state is PeerState.CONNECTED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.sender.close()
        await self.receiver.close()


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - callbacks, no events
            await asyncio.sleep(0.01)


def without_h264(sdp: str) -> str:
    """Leave VP8, which has the payload type 97, and its RTX in an offer of ours."""
    kept = []
    for line in sdp.split("\r\n"):
        payload = re.match(r"a=(?:rtpmap|fmtp|rtcp-fb):(\d+) ", line)
        if payload is None or payload[1] in ("97", "98"):
            kept.append(re.sub(r"^(m=video \S+ \S+) .*", r"\1 97 98", line))
    return "\r\n".join(kept)


@pytest.mark.parametrize(("change", "codec"), [(str, "H264"), (without_h264, "VP8")])
async def test_a_picture_arrives_as_it_was_sent_h264_first_else_vp8(
    kit: "Kit", change: Change, codec: str
) -> None:
    async with Pair() as pair:
        await pair.connect(change)
        picture = kit.picture(SIZE)
        for _ in range(10):
            pair.sender.push(picture, time.monotonic())
            await asyncio.sleep(0.05)
        await until(lambda: len(pair.pictures) >= 8)
        arrived = pair.pictures[-1][0]
        assert arrived.shape == SIZE.shape
        assert arrived.flags.c_contiguous
        assert kit.psnr(arrived, picture) > 35
        stats = await pair.sender.stats()
        assert (stats.codec, stats.pictures) == (codec, 10)
        assert (await pair.receiver.stats()).codec == codec


async def test_a_peer_that_offers_to_receive_gets_pictures(kit: "Kit") -> None:
    async with Pair() as pair:
        offer = await pair.receiver.offer_receiving()
        assert "a=recvonly" in offer
        answer = await pair.sender.answer(offer)
        assert "a=sendonly" in answer
        await pair.receiver.accept_answer(answer)
        await until(lambda: pair.sender.state is PeerState.CONNECTED)
        pair.sender.push(kit.picture(SIZE), time.monotonic())
        await until(lambda: pair.pictures)
        assert kit.psnr(pair.pictures[0][0], kit.picture(SIZE)) > 30


async def test_a_picture_comes_out_without_waiting_for_the_next_one(kit: "Kit") -> None:
    async with Pair() as pair:
        await pair.connect()
        pair.sender.push(kit.picture(SIZE), time.monotonic())
        await until(lambda: pair.pictures)
        await asyncio.sleep(0.1)
        assert len(pair.pictures) == 1


async def test_the_newest_picture_wins_and_the_others_are_counted(kit: "Kit") -> None:
    async with Pair() as pair:
        for shift in range(5):
            pair.sender.push(kit.picture(SIZE, shift * 10), time.monotonic())  # no track yet
        offer = await pair.sender.offer_sending()
        for shift in range(5):
            pair.sender.push(kit.picture(SIZE, shift * 10), time.monotonic())
        await pair.sender.accept_answer(await pair.receiver.answer(offer))
        await until(lambda: pair.pictures)
        await asyncio.sleep(0.1)
        assert len(pair.pictures) == 1
        assert kit.psnr(pair.pictures[0][0], kit.picture(SIZE, 40)) > 30
        stats = await pair.sender.stats()
        assert (stats.pictures, stats.pictures_dropped) == (1, 4)


async def test_rtp_timestamps_follow_the_capture_time_not_the_moment_of_sending(
    kit: "Kit", monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Pair() as pair:
        stamps: list[int] = []
        convert = peer_module._to_i420

        def note(frame: av.VideoFrame) -> I420:
            assert frame.pts is not None
            stamps.append(frame.pts)
            return convert(frame)

        monkeypatch.setattr(peer_module, "_to_i420", note)
        await pair.connect()
        for number in range(8):
            pair.sender.push(kit.picture(SIZE), 1000.0 + number * 0.0333)
            await asyncio.sleep(0.05)
        pair.sender.push(kit.picture(SIZE), 900.0)  # a clock that went backwards
        await until(lambda: len(stamps) == 9)
        steps = np.diff(stamps)
        assert np.abs(steps[:7] - 2997).max() <= 1
        assert steps[7] > 0


async def test_the_array_may_be_reused_after_push(kit: "Kit") -> None:
    async with Pair() as pair:
        await pair.connect()
        picture = kit.picture(SIZE)
        pair.sender.push(picture, time.monotonic())
        picture[:] = 0
        await until(lambda: pair.pictures)
        assert kit.psnr(pair.pictures[0][0], kit.picture(SIZE)) > 30


async def test_stats_have_bytes_packets_jitter_and_round_trip(kit: "Kit") -> None:
    async with Pair() as pair:
        await pair.connect()
        await pair.sender.stats()
        end = time.monotonic() + 3.2  # reports come every 0.5 to 1.5 s
        while time.monotonic() < end:
            pair.sender.push(kit.picture(SIZE), time.monotonic())
            await asyncio.sleep(0.05)
        sent, received = await pair.sender.stats(), await pair.receiver.stats()
        assert sent.packets >= received.packets > 40
        assert sent.bytes > 1000
        assert sent.bitrate_kbit > 0
        assert received.packets_lost == 0
        assert 0 <= received.jitter < 0.05
        assert sent.round_trip is not None
        assert 0 <= sent.round_trip < 0.5


async def test_the_configured_bitrate_is_kept_whatever_the_receiver_estimates() -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(16, 235, SIZE.shape, np.uint8) for _ in range(4)]
    sent: dict[int, float] = {}
    for kbit in (400, 4000):
        pair = Pair()
        await pair.receiver.close()
        pair.receiver = pair._peer(kbit, pair.states)
        await pair.connect()
        for number in range(40):
            if number == 15:  # past the key frame, which noise makes huge
                await pair.sender.stats()
            pair.sender.push(noise[number % 4], time.monotonic())
            await asyncio.sleep(0.05)
        sent[kbit] = (await pair.sender.stats()).bitrate_kbit
        await pair.close()
    assert sent[4000] > 4 * sent[400]
    assert 2500 < sent[4000] < 6500


async def test_close_tells_the_other_side_and_may_be_repeated() -> None:
    async with Pair() as pair:
        await pair.connect()
        await pair.sender.close()
        await pair.sender.close()
        await until(lambda: pair.receiver.state is PeerState.DISCONNECTED)
        assert pair.sent == [PeerState.CONNECTING, PeerState.CONNECTED, PeerState.CLOSED]
        pair.sender.push(np.zeros(SIZE.shape, np.uint8), 1.0)  # ignored, without an error


@pytest.mark.parametrize("stage", ["made", "offered", "connecting"])
async def test_close_at_any_stage_leaves_nothing(stage: str) -> None:
    pair = Pair()
    if stage != "made":
        offer = await pair.sender.offer_sending()
        if stage == "connecting":
            await pair.sender.accept_answer(await pair.receiver.answer(offer))
    await pair.close()  # the leak fixture checks tasks, threads and sockets


async def test_a_path_that_stops_answering_is_noticed_within_seconds() -> None:
    async with Pair() as pair:
        await pair.connect()
        unplug(pair.receiver)
        began = time.monotonic()
        await until(lambda: pair.sender.state is PeerState.DISCONNECTED)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "change",
    [
        lambda sdp: sdp.replace("H264", "H266").replace("VP8", "VP7"),
        lambda sdp: sdp.replace("a=sendonly", "a=inactive"),
        lambda sdp: sdp.replace("a=rtcp-mux\r\n", ""),
        lambda sdp: sdp.replace("a=ice-pwd", "a=ice-pwx"),
        lambda sdp: sdp.replace("m=video", "m=audio"),
    ],
    ids=["codecs", "inactive", "no rtcp-mux", "no ice", "audio only"],
)
async def test_an_offer_that_cannot_work_is_refused(change: Change) -> None:
    async with Pair() as pair:
        with pytest.raises(JoinRefused):
            await pair.receiver.answer(change(await pair.sender.offer_sending()))


async def test_only_this_machines_addresses_are_offered_without_stun_or_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Pair() as pair:

        async def refuse(*_: object) -> Awaitable[None]:
            raise AssertionError("a STUN or TURN server was contacted")

        monkeypatch.setattr(aioice.ice, "server_reflexive_candidate", refuse)
        monkeypatch.setattr(aioice.ice, "relayed_candidate", refuse)
        offer = await pair.sender.offer_sending()
        candidates = [line for line in offer.splitlines() if line.startswith("a=candidate")]
        assert candidates
        assert all(line.endswith("typ host") for line in candidates)


@pytest.mark.parametrize("size", [(641, 481), (640, 480), (3, 3)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv444p"])
def test_any_decoded_frame_becomes_contiguous_even_i420(size: tuple[int, int], pixels: str) -> None:
    frame = av.VideoFrame(*size, pixels)
    picture = peer_module._to_i420(frame)
    assert picture.shape == Geometry(size[0] & ~1, size[1] & ~1).shape
    assert picture.flags.c_contiguous


LONELY = """
import asyncio, time, numpy as np
from relayd.media.frames import Geometry
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer

async def main():
    size, seen = Geometry(64, 48), asyncio.Event()
    make = lambda: AiortcPeer(geometry=size, fps=20, bitrate_kbit=500, on_state=print,
                        on_picture=lambda picture, at: seen.set())
    a, b = make(), make()
    offer = await a.offer_sending()
    print(*(line for line in offer.splitlines() if "candidate:" in line), sep="\\n")
    await a.accept_answer(await b.answer(offer))
    async with asyncio.timeout(20):
        while not seen.is_set():
            a.push(np.full(size.shape, 90, np.uint8), time.monotonic())
            await asyncio.sleep(0.05)
    await a.close()
    await b.close()
    print("SEEN")

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
@pytest.mark.parametrize(
    "downed", ["", "ip link add idle0 type bridge && ip addr add 10.9.9.9/24 dev idle0 &&"]
)
def test_a_machine_with_only_its_loopback_up_still_connects(downed: str) -> None:
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs unshare and ip")
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("network namespaces are not allowed here")
    command = f'{downed} ip link set lo up && exec "$0" -c "$1"'
    run = subprocess.run(
        ["unshare", "-n", "sh", "-ec", command, sys.executable, LONELY],
        check=False,
        capture_output=True,
        text=True,
        timeout=40,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "Unknown device type" in run.stderr:
        pytest.skip("this kernel has no bridges")
    assert downed or "127.0.0.1" in run.stdout, run.stderr
    assert "SEEN" in run.stdout, run.stderr
