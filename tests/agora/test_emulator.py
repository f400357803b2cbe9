"""The emulator with Agora as its transport, seen by a front user in plain Python."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import Any

import av
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from relayd.emulator.swap import SourceFace, decode_image, likeness
from relayd.sound.blocks import BLOCK, BLOCK_BYTES, BLOCK_SECONDS, RATE
from tests.agora.caller import Caller
from tests.agora.cloud import Cloud
from tests.agora.pictures import Picture
from tests.agora.wire import Payload, Reason
from tests.support.stage import PERSON, PORTRAIT, START, Emulator, running_emulator, wait_for

APP = "an-app-id"
LONGEST_QUEUE = 0.1
"""s of sound that may wait in the engine's library, on a busy machine."""
LIVE = "/api/open/v3/faceswap/live"


@pytest.fixture
def emulator(cloud: Cloud) -> Iterator[Emulator]:
    command = [sys.executable, "-m", "tests.agora.emulator"]
    with running_emulator(*command, "--hub", cloud.path, "--app-id", APP) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def person() -> list[Picture]:
    """The first seconds of the clip of a person, 640x480."""
    with av.open(str(PERSON)) as clip:
        return [fitted(frame) for frame in islice(clip.decode(video=0), 60)]


def fitted(frame: av.VideoFrame) -> Picture:
    left = (frame.width - frame.height * 4 // 3) // 2
    whole = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    shown = np.ascontiguousarray(whole[:, left : frame.width - left])
    i420 = av.VideoFrame.from_ndarray(shown, "bgr24").reformat(640, 480, "yuv420p").to_ndarray()
    return Picture(640, 480, 0, i420.tobytes())


def bgr(payload: Payload) -> NDArray[np.uint8]:
    i420 = np.frombuffer(payload, np.uint8).reshape(720, 640)
    frame = av.VideoFrame.from_ndarray(i420, "yuv420p")
    return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def ask(emulator: Emulator, what: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{emulator.url}{LIVE}/{what}", headers={"x-api-key": "key"}, json=body)
    return dict(answer.raise_for_status().json())


def create(emulator: Emulator, cloud: Cloud) -> dict[str, Any]:
    """Create a session and wait until its engine is in the channel."""
    source = [{"path": emulator.upload(PORTRAIT), "opts": "262,175:363,175:313,215:272,279"}]
    session = dict(ask(emulator, "create", sourceImage=source)["data"])
    wait_for("the engine", lambda: [one.state for one in cloud.members()] == ["connected"], START)
    return session


@asynccontextmanager
async def join(cloud: Cloud, session: dict[str, Any]) -> AsyncIterator[Caller]:
    """Join as a relay does: publish, subscribe, ask for a key frame."""
    engine = session["algorithm_user_id"]
    async with Caller.join(
        cloud.path,
        app_id=APP,
        channel=session["channel_id"],
        uid=session["front_user_id"],
        token=session["front_rtc_token"],
    ) as front:
        front.send("publish", "video")
        front.send("subscribe", engine)
        await front.event("video_subscribed", engine)
        front.send("intra", engine)
        yield front


async def test_a_session_swaps_what_its_front_user_publishes(
    cloud: Cloud, emulator: Emulator, person: list[Picture]
) -> None:
    session = create(emulator, cloud)
    async with join(cloud, session) as front:
        began = time.monotonic()
        for picture in cycle(person):
            front.push(picture)
            await asyncio.sleep(0.05)
            if len(front.pictures) >= 40 or time.monotonic() - began > START:
                break
        swapped = front.pictures[-1]
        assert (swapped.uid, swapped.width, swapped.height) == ("3", 640, 480)
        face = SourceFace.prepare(decode_image(PORTRAIT.read_bytes()))
        before, after = likeness(bgr(picture.payload), face), likeness(bgr(swapped.payload), face)
        assert before is not None
        assert after is not None
        assert after > before + 0.1
        assert [emulator.sessions()[0][role] for role in ("publishers", "players")] == [1, 1]
    ask(emulator, "close", _id=session["_id"])


async def test_a_session_that_is_closed_ends_its_channel(cloud: Cloud, emulator: Emulator) -> None:
    session = create(emulator, cloud)
    async with join(cloud, session) as front:
        ask(emulator, "close", _id=session["_id"])
        await front.event("failed", Reason.REJECTED)


async def test_connections_that_die_fail_the_front_user_who_may_come_back(
    cloud: Cloud, emulator: Emulator
) -> None:
    session = create(emulator, cloud)
    async with join(cloud, session) as front:
        wait_for("the front user", lambda: emulator.sessions()[0]["publishers"] == 1, 5)
        emulator.fault("drop_rtc")
        await front.event("failed", Reason.LOST)
    async with join(cloud, session) as front:
        await front.event("connected")
    wait_for("nobody there", lambda: emulator.sessions()[0]["players"] == 0, 5)


def numbered(number: int) -> bytes:
    """A block that its number tells from all others."""
    return np.full(BLOCK, 1 + number, np.int16).tobytes()


async def speak(front: Caller, blocks: int) -> None:
    """Send blocks at the pace of sound."""
    began = time.monotonic()
    for number in range(blocks):
        await asyncio.sleep(max(0.0, began + number * BLOCK_SECONDS - time.monotonic()))
        front.say(numbered(number))


@asynccontextmanager
async def speaking(cloud: Cloud, session: dict[str, Any]) -> AsyncIterator[Caller]:
    """Join, publish sound and subscribe to the engine's."""
    async with join(cloud, session) as front:
        front.send("publish", "audio")
        front.send("subscribe_sound", session["algorithm_user_id"], 0)
        yield front


async def test_without_a_fault_the_engine_hears_the_voice_and_offers_none(
    cloud: Cloud, emulator: Emulator
) -> None:
    session = create(emulator, cloud)
    async with speaking(cloud, session) as front:
        await speak(front, 50)
        assert front.sounds == []
        assert not [event for event in front.events if event[0] == "sound_subscribed"]
        assert cloud.members("3")[0].publishes == ["video"]
        wait_for("its sound", lambda: emulator.sessions()[0]["sound_in"] >= 40, 5)


async def test_an_echo_comes_back_as_the_engines_sound_whole_in_order_and_even(
    cloud: Cloud, emulator: Emulator
) -> None:
    session = create(emulator, cloud)
    emulator.fault("sound", kind="echo")
    async with speaking(cloud, session) as front:
        await speak(front, 150)
        await front.event("sound_subscribed", "3")
        await asyncio.sleep(0.1)
        forms = {(one.uid, one.rate, one.channels, len(one.payload)) for one in front.sounds}
        assert forms == {("3", RATE, 1, BLOCK_BYTES)}
        numbers = [int(np.frombuffer(one.payload, np.int16)[0]) for one in front.sounds]
        assert numbers == sorted(set(numbers))
        assert len(numbers) > 100
        sent = cloud.members("3")[0].sound
        assert sent["stamped"] == 0
        assert sent["longest_queue"] < LONGEST_QUEUE


async def test_an_engine_that_gets_sound_of_another_form_gives_up(
    cloud: Cloud, emulator: Emulator
) -> None:
    session = create(emulator, cloud)
    async with speaking(cloud, session) as front:
        front.say(bytes(BLOCK_BYTES * 2), channels=2)
        await front.event("left", "3")
