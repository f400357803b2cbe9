"""The hub's promises, kept towards members in plain Python over its real socket."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from secrets import token_hex

import numpy as np
import pytest

from tests.agora.caller import Caller, Received
from tests.agora.cloud import Cloud
from tests.agora.control import Refused
from tests.agora.pictures import Picture
from tests.agora.sounds import Block, SentSound
from tests.agora.wire import Reason, SoundReason, SoundState, encode

APP, TOKEN = "an-app-id", "a token with spaces, and an e with an accent: é"
REFUSALS = [reason for reason in Reason if reason not in {Reason.CONNECTING, Reason.JOINED}]
Join = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def channel(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """Open a channel of the test's own, in which key frames come only when asked for."""
    name = f"{request.node.name} {token_hex(4)}"  # of its own when it runs again, too
    cloud.open(name, app_id=APP, token=TOKEN, uids=["1", "2", "3"], key_seconds=60)
    yield name
    cloud.close(name)


@pytest.fixture
def join(cloud: Cloud, channel: str) -> Join:
    """Return a function that joins the channel."""

    def join(
        uid: str = "1", *, app_id: str = APP, channel: str = channel, token: str = TOKEN
    ) -> AbstractAsyncContextManager[Caller]:
        return Caller.join(cloud.path, app_id=app_id, channel=channel, uid=uid, token=token)

    return join


@pytest.fixture
async def front(join: Join) -> AsyncIterator[Caller]:
    """User 1, who waits for the pictures of user 3."""
    async with join("1") as caller:
        caller.send("subscribe", "3")
        await caller.event("connected")
        yield caller


@pytest.fixture
async def engine(join: Join, front: Caller) -> AsyncIterator[Caller]:
    """User 3, whose pictures user 1 can decode as soon as they come."""
    async with join("3") as caller:
        caller.send("publish", "video")
        await front.event("video_subscribed", "3")
        front.send("intra", "3")
        await caller.event("intra_wanted")
        yield caller


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not done():  # noqa: ASYNC110  asked of the hub
            await asyncio.sleep(0.01)


def picture(width: int = 64, height: int = 48, rotation: int = 0) -> Picture:
    """A picture in which every row and every column is different."""
    rows, columns = np.mgrid[:height, :width]
    luma = (rows * 3 + columns).astype(np.uint8)
    half = luma[::2, ::2]
    return Picture.of_planes([luma, half, 255 - half], rotation)


def same(received: Received, sent: Picture) -> bool:
    pairs = zip(received.planes, sent.planes(), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


# Admission


async def test_a_user_with_the_channels_token_may_join(join: Join) -> None:
    async with join("1") as caller:
        await caller.event("connected", Reason.JOINED, "1")
        assert caller.events[0] == ("connecting", "0")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"app_id": "another"}, Reason.INVALID_APP_ID),
        ({"channel": "another"}, Reason.INVALID_CHANNEL),
        ({"token": "another"}, Reason.INVALID_TOKEN),
        ({"token": ""}, Reason.INVALID_TOKEN),
        ({"uid": "5"}, Reason.INVALID_TOKEN),
    ],
)
async def test_a_wrong_join_fails_with_agoras_reason(
    join: Join, wrong: dict[str, str], reason: Reason
) -> None:
    async with join(**wrong) as caller:
        await caller.event("failed", reason)
        assert [event[0] for event in caller.events] == ["connecting", "failed"]


async def test_an_expired_token_is_refused(cloud: Cloud, channel: str, join: Join) -> None:
    cloud.expire_token(channel, TOKEN)
    async with join("1") as caller:
        await caller.event("failed", Reason.TOKEN_EXPIRED)
    cloud.allow_token(channel, "a new one")
    async with join("1", token="a new one") as caller:
        await caller.event("connected")


async def test_the_second_user_of_a_uid_replaces_the_first(join: Join) -> None:
    async with join("1") as first:
        await first.event("connected")
        async with join("1") as second:
            await second.event("connected")
            await first.event("failed", Reason.SAME_UID)


async def test_a_closed_channel_rejects_its_members_and_all_to_come(
    cloud: Cloud, channel: str, join: Join
) -> None:
    async with join("1") as caller:
        await caller.event("connected")
        cloud.close(channel)
        await caller.event("failed", Reason.REJECTED)
    async with join("1") as caller:
        await caller.event("failed", Reason.REJECTED)


async def test_a_user_who_leaves_the_choice_to_the_server_gets_a_uid(
    cloud: Cloud, channel: str, join: Join
) -> None:
    cloud.open(f"{channel}, for anybody", app_id=APP, token=TOKEN)
    async with join("0", channel=f"{channel}, for anybody") as caller:
        _, _, uid = await caller.event("connected")
    assert int(uid) > 0


@pytest.mark.parametrize("reason", REFUSALS)
async def test_joins_can_be_refused_for_each_reason(
    cloud: Cloud, join: Join, reason: Reason
) -> None:
    cloud.refuse_joins(reason)
    async with join("1") as caller:
        await caller.event("failed", reason)
    async with join("1") as caller:
        await caller.event("connected")


async def test_joins_can_end_with_only_an_error(cloud: Cloud, join: Join) -> None:
    cloud.refuse_joins(None, error=109)
    async with join("1") as caller:
        await caller.event("error", 109)
        assert cloud.members()[-1].state == "connecting"


async def test_joins_can_be_delayed_or_stay_unanswered(cloud: Cloud, join: Join) -> None:
    cloud.ignore_joins()
    cloud.delay_joins(0.3)
    began = time.monotonic()
    async with join("1") as ignored:
        await ignored.event("connecting")
        async with join("1") as delayed:
            await delayed.event("connected")
        assert time.monotonic() - began >= 0.3
        assert ignored.events == [("connecting", "0")]


# Others


async def test_members_learn_of_each_other(join: Join) -> None:
    async with join("1") as first, join("3") as second:
        await first.event("joined", "3")
        await second.event("joined", "1")
        second.send("leave")
        await second.event("disconnected", Reason.LEFT)
        await first.event("left", "3", 0)


async def test_a_user_whose_connection_ends_has_dropped_out(front: Caller, engine: Caller) -> None:
    await engine.disconnect_hard()
    await front.event("left", "3", 1)
    await front.event("video_state", "3", 0, 7)


async def test_an_engine_that_goes_away_and_comes_back_is_seen_to(
    cloud: Cloud, front: Caller, engine: Caller
) -> None:
    engine.push(picture())
    await front.picture()
    cloud.go_away("3")
    await front.event("left", "3", 0)
    front.forget()
    engine.forget()
    engine.push(picture())
    cloud.come_back("3")
    await front.event("joined", "3")
    await front.event("video_subscribed", "3")
    assert not front.pictures
    front.send("intra", "3")
    await engine.event("intra_wanted")
    engine.push(picture())
    await front.picture()


async def test_requests_before_the_answer_take_effect_after_it(cloud: Cloud, join: Join) -> None:
    cloud.delay_joins(0.1)
    async with join("1") as early, join("3") as other:
        early.send("encoder", 640, 480, 20, 5_000_000, 5_000_000, 2)
        early.send("publish", "video")
        early.send("subscribe", "3")
        other.send("subscribe", "1")
        other.send("publish", "video")
        await early.event("video_subscribed", "3")
        await other.event("video_subscribed", "1")
    seen = cloud.members("1")[-1]
    assert (seen.publishes, seen.subscribes) == (["video"], ["3"])
    assert seen.encoder["bitrate"] == 5_000_000
    assert seen.pid == os.getpid()


# Pictures


async def test_a_picture_reaches_those_who_subscribed_its_user(
    front: Caller, engine: Caller
) -> None:
    engine.push(sent := picture())
    received = await front.picture()
    assert (received.uid, received.width, received.height) == ("3", 64, 48)
    assert received.strides == (64, 32, 32)
    assert same(received, sent)


async def test_pictures_of_odd_sizes_pass(front: Caller, engine: Caller) -> None:
    engine.push(sent := picture(639, 479))
    received = await front.picture()
    assert received.strides == (639, 320, 320)
    assert same(received, sent)


async def test_nothing_reaches_those_who_did_not_subscribe(
    cloud: Cloud, front: Caller, engine: Caller
) -> None:
    front.send("unsubscribe", "3")
    front.send("publish", "video")
    engine.send("subscribe", "1")
    await engine.event("video_subscribed", "1")  # all that front said has been heard
    engine.push(picture())
    await until(lambda: cloud.members("3")[-1].frames_in == 1)
    assert cloud.members("1")[-1].frames_out == 0


async def test_no_picture_comes_before_a_key_frame_is_requested(
    cloud: Cloud, join: Join, front: Caller
) -> None:
    front.send("intra", "3")  # too early: nobody there to hear it
    await until(lambda: cloud.members("1")[-1].intra_requests)
    async with join("3") as engine:
        engine.send("publish", "video")
        await front.event("video_subscribed", "3")
        engine.push(picture())
        await until(lambda: cloud.members("3")[-1].frames_in == 1)
        assert cloud.members("1")[-1].frames_out == 0
        front.send("intra", "3")
        await engine.event("intra_wanted")
        engine.push(picture())
        await front.picture()
        await front.event("first_picture", "3", 64, 48)
        await front.event("video_state", "3", 2)


async def test_a_key_frame_comes_unasked_after_the_channels_interval(
    cloud: Cloud, channel: str, join: Join
) -> None:
    paced = f"{channel}, with key frames"
    cloud.open(paced, app_id=APP, token=TOKEN, key_seconds=0.4)
    async with join("1", channel=paced) as front, join("3", channel=paced) as engine:
        front.send("subscribe", "3")
        engine.send("publish", "video")
        await front.event("video_subscribed", "3")
        began = time.monotonic()
        while not front.pictures and time.monotonic() - began < 5:
            engine.push(picture())
            await asyncio.sleep(0.02)
        assert 0.35 < time.monotonic() - began < 5


async def test_a_slow_member_blocks_nobody_and_gets_the_newest_picture(
    cloud: Cloud, front: Caller, engine: Caller, join: Join
) -> None:
    await front.stop_reading()
    async with join("2") as quick:
        quick.send("subscribe", "3")
        await quick.event("video_subscribed", "3")
        quick.send("intra", "3")
        await engine.event("intra_wanted")
        for number in range(20):
            engine.push(last := picture(640, 480, rotation=90 * (number % 4)))
            await quick.picture(number)
    slow = cloud.members("1")[-1]
    assert slow.frames_out + slow.frames_replaced == 19  # and one waits
    assert slow.frames_replaced > 10
    front.start_reading()
    assert (await front.picture(slow.frames_out)).rotation == last.rotation
    await front.stop_reading()


# What may be wrong with pictures


@pytest.mark.parametrize("pad", [1, 7, 64])
async def test_rows_can_be_padded(cloud: Cloud, front: Caller, engine: Caller, pad: int) -> None:
    cloud.spoil(pad=pad)
    engine.push(sent := picture())
    received = await front.picture()
    assert received.strides == (64 + pad, 32 + pad, 32 + pad)
    assert len(received.payload) == 48 * (64 + pad) + 48 * (32 + pad)
    assert same(received, sent)


@pytest.mark.parametrize("size", [(639, 479), (2, 2), (1, 1), (1280, 720)])
async def test_pictures_can_have_another_size(
    cloud: Cloud, front: Caller, engine: Caller, size: tuple[int, int]
) -> None:
    cloud.spoil(size=size)
    engine.push(sent := picture())
    received = await front.picture()
    assert (received.width, received.height) == size
    assert [plane.shape[::-1] for plane in received.planes[1:]] == [
        ((size[0] + 1) // 2, (size[1] + 1) // 2)
    ] * 2
    assert received.planes[0][0, 0] == sent.planes()[0][0, 0]


@pytest.mark.parametrize("rotation", [90, 180, 270])
async def test_a_rotated_picture_is_upright_once_it_is_turned_clockwise(
    cloud: Cloud, front: Caller, engine: Caller, rotation: int
) -> None:
    cloud.spoil(rotation=rotation)
    engine.push(sent := picture())
    received = await front.picture()
    assert received.rotation == rotation
    turned = [np.rot90(plane, -rotation // 90) for plane in received.planes]
    assert all(map(np.array_equal, turned, sent.planes()))


async def test_the_same_picture_can_come_again_and_again(
    cloud: Cloud, front: Caller, engine: Caller
) -> None:
    cloud.spoil(frozen=True)
    engine.push(first := picture())
    await front.picture()
    engine.push(picture(32, 24))
    assert same(await front.picture(1), first)
    cloud.repair()
    engine.push(picture(32, 24))
    assert (await front.picture(2)).width == 32


async def test_pictures_can_stop_while_the_connection_stays(
    cloud: Cloud, front: Caller, engine: Caller
) -> None:
    cloud.spoil(stopped=True)
    engine.push(picture())
    await front.event("first_picture")
    assert not front.pictures
    cloud.repair()
    engine.push(picture())
    await front.picture()


async def test_a_member_can_get_its_own_pictures_as_user_0(
    cloud: Cloud, front: Caller, engine: Caller
) -> None:
    cloud.spoil(echo=True)
    front.send("publish", "video")
    engine.send("subscribe", "1")
    await engine.event("video_subscribed", "1")
    front.push(own := picture(32, 24))
    await until(lambda: cloud.members("1")[-1].frames_in)
    engine.push(picture())
    assert same(await front.picture(0), own)
    assert [one.uid for one in (front.pictures[0], await front.picture(1))] == ["0", "3"]


async def test_a_picture_can_have_no_size(cloud: Cloud, front: Caller, engine: Caller) -> None:
    cloud.spoil(broken=True)
    engine.push(picture())
    received = await front.picture()
    assert (received.width, received.height, received.payload) == (0, 0, b"")


async def test_a_burst_of_another_users_pictures_comes_whole(cloud: Cloud, front: Caller) -> None:
    cloud.burst(20)
    await front.picture(19)
    assert {one.uid for one in front.pictures} == {"77"}


# What may befall a member


async def test_tokens_can_run_out_and_be_renewed(cloud: Cloud, join: Join, front: Caller) -> None:
    cloud.will_expire(TOKEN)
    await front.event("will_expire", TOKEN)
    front.send("renew", "a new one")
    cloud.did_expire()
    await front.event("did_expire")
    await until(lambda: cloud.members("1")[-1].renewed == ["a new one"])


async def test_an_expired_token_admits_no_more(cloud: Cloud, join: Join, front: Caller) -> None:
    cloud.did_expire()
    await front.event("did_expire")
    async with join("1") as caller:
        await caller.event("failed", Reason.TOKEN_EXPIRED)


async def test_an_interrupted_member_gets_pictures_again_after_a_key_frame(
    cloud: Cloud, front: Caller, engine: Caller
) -> None:
    engine.push(picture())
    await front.picture()
    engine.forget()
    cloud.interrupt()
    cloud.lose()
    engine.push(picture())
    await until(lambda: cloud.members("3")[-1].frames_in == 2)
    cloud.resume()
    engine.push(picture())
    await until(lambda: cloud.members("3")[-1].frames_in == 3)
    for event in ("reconnecting", "lost", "reconnected"):
        await front.event(event)
    assert len(front.pictures) == 1
    front.send("intra", "3")
    await engine.event("intra_wanted")
    engine.push(picture())
    await front.picture(1)


@pytest.mark.parametrize("state", ["failed", "disconnected"])
async def test_a_membership_can_end_for_any_reason(
    cloud: Cloud, front: Caller, engine: Caller, state: str
) -> None:
    {"failed": cloud.fail, "disconnected": cloud.disconnect}[state](Reason.BANNED)
    await front.event(state, Reason.BANNED)
    await engine.event("left", "1", 1)
    assert cloud.members("1")[-1].state == state


async def test_errors_and_the_networks_state_can_be_reported(cloud: Cloud, front: Caller) -> None:
    cloud.error(17, "join rejected")
    await front.event("error", 17, "join rejected")
    cloud.network(rtt_ms=300, tx_loss=5, rx_loss=7)
    await front.event("stats", 0, 0, 300, 5, 7)


# Services


def test_a_service_gets_the_preset_and_its_calls_are_recorded(cloud: Cloud) -> None:
    cloud.preset(hang=["rtc_conn_connect"], fail={"local_user_publish_video": -8}, init=-7)
    with socket.socket(socket.AF_UNIX) as service, service.makefile("rb") as lines:
        service.connect(cloud.path)
        service.sendall(encode("service", 4242, APP, 1, 0, 0, 1))
        answers = [lines.readline() for _ in range(3)]
        service.sendall(encode("call", "rtc_conn_create", 77, 1, 4242))
        while not cloud.calls(4242):
            time.sleep(0.01)
        service.sendall(encode("applied"))  # beforehand: nobody else would answer what comes now
        cloud.fail_calls("rtc_conn_renew_token", -5, 4242)
        cloud.segv(4242)
        answers += [lines.readline() for _ in range(2)]
    assert answers == [
        b"hang rtc_conn_connect 0\n",
        b"fail local_user_publish_video -8 0\n",
        b"inited -7 0\n",
        b"fail rtc_conn_renew_token -5 0\n",
        b"segv 0\n",
    ]
    assert cloud.calls() == [("rtc_conn_create", 77, True, 4242)]
    assert cloud.services()[-1].video == 1


# Control


@pytest.mark.parametrize(
    ("do", "words", "why"),
    [
        ("fly", {}, "'fly' cannot be done; .*open"),
        ("close", {}, "close: missing a required argument: 'channel'"),
        ("close", {"channel": "nowhere"}, "there is no channel 'nowhere'"),
        ("interrupt", {"uid": "5"}, "user '5' is in no channel"),
        ("pictures", {"uid": "1", "rotation": 45}, "rotation is 0, 90, 180 or 270, not 45"),
        ("pictures", {"uid": "1", "blur": 1}, "unexpected keyword argument 'blur'"),
        ("sound", {"uid": "1", "loud": 1}, "unexpected keyword argument 'loud'"),
        ("order", {"name": "abort", "words": []}, "there is no service"),
    ],
)
def test_the_hub_refuses_impossible_requests_with_a_message(
    cloud: Cloud, do: str, words: dict[str, object], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        cloud.control.ask(do, **words)


async def test_an_invalid_message_closes_the_connection_and_the_hub_goes_on(
    cloud: Cloud, front: Caller
) -> None:
    front.send("dance")
    await front._listening
    assert cloud.members("1")[-1].state == "vanished"


# Sound


@pytest.fixture
async def singer(join: Join, front: Caller) -> AsyncIterator[Caller]:
    """User 3, whose sound user 1 has subscribed."""
    front.send("subscribe_sound", "3", 0)
    async with join("3") as caller:
        caller.send("publish", "audio")
        await front.event("sound_subscribed", "3")
        await front.event("sound_state", "3", SoundState.STARTING, SoundReason.INTERNAL)
        yield caller


async def test_sound_reaches_its_subscribers_whole_and_in_order(
    front: Caller, singer: Caller, join: Join
) -> None:
    async with join("2") as bystander:
        await bystander.event("connected")
        for number in range(50):
            singer.say(bytes([number]) * 960)
        await front.event("first_sound", "3")
        await front.event("sound_state", "3", SoundState.DECODING, SoundReason.UNMUTED)
        await until(lambda: len(front.sounds) == 50)
        assert [(one.uid, one.rate, one.channels) for one in front.sounds] == [("3", 48000, 1)] * 50
        assert [bytes(one.payload) for one in front.sounds] == [bytes([n]) * 960 for n in range(50)]
        assert bystander.sounds == []


async def test_a_subscriber_is_told_when_sound_ends_and_how(
    front: Caller, singer: Caller, cloud: Cloud
) -> None:
    singer.send("unpublish", "audio")
    await front.event("sound_state", "3", SoundState.STOPPED, SoundReason.MUTED)
    singer.say(bytes(960))
    front.forget()
    singer.send("publish", "audio")
    await front.event("sound_subscribed", "3")
    assert front.sounds == []
    cloud.go_away("3")
    await front.event("sound_state", "3", SoundState.STOPPED, SoundReason.OFFLINE)
    front.forget()
    cloud.come_back("3")
    await front.event("sound_subscribed", "3")


async def test_nobody_hears_a_user_after_unsubscribing(
    front: Caller, singer: Caller, cloud: Cloud
) -> None:
    front.send("unsubscribe_sound", "3")
    await until(lambda: cloud.members("1")[-1].hears == [])
    singer.say(bytes(960))
    await until(lambda: cloud.members("3")[-1].sound["count"])
    assert cloud.members("1")[-1].heard == 0


def blocks(*sent: float) -> SentSound:
    """What the hub counts of blocks of 10 ms that were pushed at these times."""
    sound = SentSound()
    for at in sent:
        sound.note(Block(48_000, 1, 0, at, bytes(960)))
    return sound


def test_blocks_that_come_late_or_in_a_burst_are_counted() -> None:
    even = blocks(*np.arange(0, 1, 0.01))
    assert (even.count, even.late, even.bursts) == (100, 0, 0)
    assert even.longest_queue < 0.001
    assert blocks(0.0, 0.01, 0.13, 0.14).late == 1
    assert blocks(0.0, 0.01, 0.10, 0.11).late == 0
    burst = blocks(*[0.0] * 10)
    assert burst.bursts == 4
    assert burst.longest_queue == pytest.approx(0.09)
