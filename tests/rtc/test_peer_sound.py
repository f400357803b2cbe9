"""Sound over one connection, both ways, beside the pictures and without them."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest
from aiortc import RTCRtpSender

from relayd.media.frames import Geometry
from relayd.rtc.webrtc.engine import PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer
from relayd.rtc.webrtc.playout import DEPTH
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples, silence

if TYPE_CHECKING:
    from tests.rtc.conftest import Kit

SIZE = Geometry(320, 240)
BEEP_BLOCKS, PERIOD_BLOCKS = 5, 50  # 50 ms of beep each 500 ms: more than any delay here
LOUD = 3000
LEFT_BEHIND = 0.2
"""s of delay that one lost packet leaves behind with aiortc's own buffer."""
SETTLES_WITHIN = 12.0
"""s; a second or two where the machine lets each packet through in time (test_playout.py)."""


def tone(number: int, hertz: float = 1000) -> Samples:
    at = number * BLOCK + np.arange(BLOCK)
    return (np.sin(2 * np.pi * hertz * at / RATE) * 12000).astype(np.int16)


def beeps(number: int) -> Samples:
    return tone(number) if number % PERIOD_BLOCKS < BEEP_BLOCKS else silence()


class SoundPair:
    """A connection from a sender to a receiver, in one loop; the blocks that arrived."""

    def __init__(self, *, sends: bool = True, receives: bool = True) -> None:
        self.heard: list[tuple[Samples, float]] = []
        self.sent_at: list[float] = []
        self.sender = AiortcPeer(
            geometry=SIZE, fps=20, bitrate_kbit=1000, on_state=_ignore, sends_sound=sends
        )
        self.receiver = AiortcPeer(
            geometry=SIZE,
            fps=20,
            bitrate_kbit=1000,
            on_state=_ignore,
            on_sound=(lambda samples, at: self.heard.append((samples, at))) if receives else None,
        )

    async def connect(
        self, change: Callable[[str], str] = str, *, by_receiver: bool = False
    ) -> str:
        """Connect; returns the answer."""
        if by_receiver:
            answer = change(await self.sender.answer(await self.receiver.offer_receiving()))
            await self.receiver.accept_answer(answer)
        else:
            answer = change(await self.receiver.answer(await self.sender.offer_sending()))
            await self.sender.accept_answer(answer)
        async with asyncio.timeout(10):
            while not self.sender.state is self.receiver.state is PeerState.CONNECTED:  # noqa: ASYNC110 - callbacks, no events
                await asyncio.sleep(0.01)
        return answer

    async def speak(self, blocks: int, wave: Callable[[int], Samples] = tone) -> None:
        """Push that many blocks, at their pace."""
        begin, first = time.monotonic(), len(self.sent_at)
        for number in range(blocks):
            at = begin + number * BLOCK_SECONDS
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            self.sent_at.append(at)
            self.sender.push_sound(wave(first + number), at)

    def pieces(self, blocks: int) -> list[np.ndarray]:
        """What was heard, in pieces of so many blocks."""
        ends = range(blocks, len(self.heard), blocks)
        return [np.concatenate([one for one, _ in self.heard[end - blocks : end]]) for end in ends]

    def lag(self, after: float = 0.0) -> float:
        """The least s from when a beep was to be pushed until it was handed out, after that time.

        A busy machine only pushes and receives later, and the buffer waits longer for that. Delay
        that is left behind is in each beep, so in the least as well.
        """
        onsets = [
            at + int(np.argmax(np.abs(samples) > LOUD)) / RATE
            for (samples, at), (before, _) in zip(self.heard[1:], self.heard, strict=False)
            if np.abs(samples).max() > LOUD and np.abs(before).max() <= LOUD
        ]
        begun = np.array(self.sent_at[::PERIOD_BLOCKS])
        found = [onset - begun[begun <= onset].max(initial=-np.inf) for onset in onsets]
        lags = [lag for lag, onset in zip(found, onsets, strict=True) if onset > after]
        return float(min(lags, default=np.inf))

    async def lag_falls_below(self, limit: float) -> None:
        """Send beeps until their lag is less; AssertionError if it is not in time."""
        give_up = time.monotonic() + SETTLES_WITHIN
        while True:
            since = time.monotonic()
            await self.speak(2 * PERIOD_BLOCKS, beeps)
            if (lag := self.lag(since)) < limit:
                return
            assert time.monotonic() < give_up, f"beeps come {lag:.3f} s late, not {limit:.3f}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sender.close()
        await self.receiver.close()


def _ignore(_state: PeerState) -> None:
    """Ignore it."""


def loudness(wave: np.ndarray, hertz: float) -> float:
    """The share of the wave's power that is a tone of that frequency."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(wave), 1 / RATE) - hertz) < 20
    return float(spectrum[near].sum() / spectrum.sum())


@pytest.mark.parametrize("by_receiver", [False, True], ids=["WHIP", "WHEP"])
async def test_sound_arrives_as_it_was_sent(*, by_receiver: bool) -> None:
    async with SoundPair() as pair:
        await pair.connect(by_receiver=by_receiver)
        assert pair.sender.has_sound
        assert pair.receiver.has_sound
        clear: list[np.ndarray] = []
        for _ in range(6):  # on a busy machine, sound has holes
            await pair.speak(80)
            clear = [piece for piece in pair.pieces(20) if loudness(piece, 1000) > 0.95]
            if len(clear) >= 2:
                break
        assert len(clear) >= 2
        assert 6000 < np.abs(clear[-1]).max() < 16000
        assert all(samples.shape == (BLOCK,) for samples, _ in pair.heard)
        assert all(samples.dtype == np.int16 for samples, _ in pair.heard)


async def test_pictures_and_sound_share_a_connection(kit: "Kit") -> None:
    async with SoundPair() as pair:
        await pair.connect()
        pictures = []
        pair.receiver._on_picture = lambda picture, _at: pictures.append(picture)
        for _ in range(10):
            pair.sender.push(kit.picture(SIZE), time.monotonic())
            await pair.speak(5)
        assert kit.psnr(pictures[-1], kit.picture(SIZE)) > 30
        assert len(pair.heard) > 20
        stats = await pair.sender.stats()
        assert (stats.codec, stats.pictures) == ("H264", 10)


async def test_blocks_come_out_evenly_in_time_order_soon_after_they_went_in() -> None:
    async with SoundPair() as pair:
        await pair.connect()
        await pair.speak(200, beeps)
        times = np.array([at for _, at in pair.heard])
        even = np.isclose(np.diff(times), BLOCK_SECONDS, atol=1e-6)
        assert even.mean() > 0.9  # the rest is for a busy machine, as the last 60 ms below
        # 20 ms to fill a packet, 6.5 ms of Opus, DEPTH.
        await pair.lag_falls_below(0.03 + DEPTH + 0.06)


async def test_after_losses_the_delay_is_again_what_it_was() -> None:
    async with SoundPair() as pair:
        await pair.connect()
        await pair.speak(100, beeps)
        before = pair.lag()
        pair.sender.lose_sound(0.15)
        await pair.speak(150, beeps)
        pair.sender.lose_sound(0)
        await pair.lag_falls_below(before + LEFT_BEHIND / 2)
        assert len(pair.heard) > len(pair.sent_at) * 0.65


async def test_without_sound_the_offers_are_what_they_always_were() -> None:
    async with SoundPair(sends=False, receives=False) as pair:
        for offer in (await pair.sender.offer_sending(), await pair.receiver.offer_receiving()):
            assert "m=audio" not in offer
            assert "opus" not in offer
            assert offer.count("m=") == 1


async def test_only_opus_is_offered_after_the_pictures() -> None:
    async with SoundPair() as pair:
        for offer in (await pair.sender.offer_sending(), await pair.receiver.offer_receiving()):
            assert offer.index("m=video") < offer.index("m=audio")
            assert "opus/48000/2" in offer
            assert "PCM" not in offer


def without_its_section(answer: str) -> str:
    head, found, rest = answer.partition("m=audio ")
    assert found
    _, more, others = rest.partition("\nm=")
    return head + (f"m={others}" if more else "")


def rejected(answer: str) -> str:
    """Reject the sound as RFC 3264 §6 says: port 0, and nothing else is needed."""
    return without_its_section(answer) + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=inactive\r\n"


@pytest.mark.parametrize("change", [without_its_section, rejected])
@pytest.mark.parametrize("by_receiver", [False, True], ids=["WHIP", "WHEP"])
async def test_an_answer_without_the_offered_sound_is_no_fault(
    change: Callable[[str], str], kit: "Kit", *, by_receiver: bool
) -> None:
    async with SoundPair() as pair:
        pictures = []
        pair.receiver._on_picture = lambda picture, _at: pictures.append(picture)
        await pair.connect(change, by_receiver=by_receiver)
        offerer = pair.receiver if by_receiver else pair.sender
        assert not offerer.has_sound
        for _ in range(5):
            pair.sender.push(kit.picture(SIZE), time.monotonic())
            await pair.speak(5)
        assert pictures


@pytest.mark.parametrize("by_receiver", [False, True], ids=["WHIP", "WHEP"])
async def test_a_side_that_wants_no_sound_answers_without(kit: "Kit", *, by_receiver: bool) -> None:
    async with SoundPair(sends=not by_receiver, receives=by_receiver) as pair:
        pictures = []
        pair.receiver._on_picture = lambda picture, _at: pictures.append(picture)
        await pair.connect(by_receiver=by_receiver)
        for _ in range(5):
            pair.sender.push(kit.picture(SIZE), time.monotonic())
            await pair.speak(5)
        assert pictures
        assert pair.heard == []


async def test_a_hole_in_what_is_sent_is_no_delay_afterwards() -> None:
    async with SoundPair() as pair:
        await pair.connect()
        await pair.speak(100, beeps)
        before = pair.lag()
        await asyncio.sleep(0.5)
        pair.sent_at = pair.sent_at[: len(pair.sent_at) - len(pair.sent_at) % PERIOD_BLOCKS]
        await pair.lag_falls_below(before + LEFT_BEHIND / 2)


async def test_what_cannot_be_sent_yet_is_not_sent_later() -> None:
    async with SoundPair() as pair:
        await pair.sender.offer_sending()
        await pair.speak(30)  # not connected: dropped
        assert pair.sender._voice is not None
        assert len(pair.sender._voice._packets) == 0


def test_the_codecs_of_the_library_still_begin_with_opus() -> None:
    assert RTCRtpSender.getCapabilities("audio").codecs[0].mimeType == "audio/opus"
