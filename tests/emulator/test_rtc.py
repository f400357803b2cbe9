import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from relayd.emulator.sessions import SessionRules
from relayd.emulator.swap import SourceFace, decode_image, likeness
from relayd.media.frames import I420, Geometry, black, luma
from relayd.rtc.webrtc.engine import PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer

SDP = {"content-type": "application/sdp"}


def difference(one: I420, other: I420) -> float:
    """Mean absolute difference of brightness."""
    return float(np.abs(luma(one).astype(np.int16) - luma(other)).mean())


def like(picture: I420, portrait: bytes) -> float:
    """Correlate the picture's face with that of an image file."""
    found = likeness(picture, SourceFace.prepare(decode_image(portrait)))
    assert found is not None
    return found


SECOND = 20
"""Pictures."""


async def faded_in(emulator: Any, session: dict[str, Any], player: Any) -> I420:
    """Wait until another second's pictures are swapped, so faded in; return one from then."""
    wanted = (await emulator.session(session["_id"]))["frames_swapped"] + SECOND
    async with asyncio.timeout(20):
        while (await emulator.session(session["_id"]))["frames_swapped"] < wanted:  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.05)
    _, picture = await player.picture_after(time.monotonic())
    assert isinstance(picture, np.ndarray)
    return picture


def bearer(session: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {session['front_rtc_token']}"}


async def test_the_picture_comes_back_with_the_other_face(
    emulator: Any, portrait: bytes, camera_picture: I420
) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, camera_picture)
    player = await emulator.play(session)
    swapped = await faded_in(emulator, session, player)
    assert like(camera_picture, portrait) < 0.85
    assert like(swapped, portrait) > 0.9
    assert swapped.shape == camera_picture.shape
    seen = await emulator.session(session["_id"])
    assert (seen["publishers"], seen["players"]) == (1, 1)
    assert seen["frames_swapped"] > 10
    assert seen["frames_out"] > 10
    assert 0 < seen["swap_ms"] < 500
    await publisher.close()
    await player.close()


async def test_update_changes_the_face_of_a_live_session_within_a_second_of_pictures(
    emulator: Any, portrait: bytes, other_portrait: bytes, camera_picture: I420
) -> None:
    session = await emulator.create(other_portrait)
    publisher = await emulator.publish(session, camera_picture)
    player = await emulator.play(session)
    before = await faded_in(emulator, session, player)
    source = [{"path": await emulator.upload(portrait), "opts": "1,1:2,2:3,3:4,4"}]
    await emulator.call("update", {"_id": session["_id"], "sourceImage": source})
    after = await faded_in(emulator, session, player)
    assert like(before, portrait) < 0.88
    assert like(after, portrait) > 0.9
    assert player.states == [PeerState.CONNECTING, PeerState.CONNECTED]
    await publisher.close()
    await player.close()


async def test_a_picture_without_a_face_comes_back_unchanged(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    picture = black(Geometry(640, 480))
    luma(picture)[:] = np.linspace(20, 220, 640, dtype=np.uint8)
    publisher = await emulator.publish(session, picture)
    player = await emulator.play(session)
    await player.picture_after(0.0)
    _, back = await player.picture_after(time.monotonic() + 0.5)
    assert difference(back, picture) < 3  # the loss of two codecs
    seen = await emulator.session(session["_id"])
    assert seen["frames_swapped"] == 0
    assert seen["frames_without_face"] > 0
    await publisher.close()
    await player.close()


async def test_pictures_of_another_size_come_back_in_their_own(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, black(Geometry(320, 240)))
    player = await emulator.play(session)
    assert (await player.picture_after(0.0))[1].shape == Geometry(320, 240).shape
    await publisher.close()
    await player.close()


async def test_a_player_may_come_before_the_publisher(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    player = await emulator.play(session)
    await player.until_state(PeerState.CONNECTED)
    assert player.pictures == []
    publisher = await emulator.publish(session, black(Geometry(640, 480)))
    await player.picture_after(0.0)
    await publisher.close()
    await player.close()


async def test_close_ends_the_connections(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, black(Geometry(640, 480)))
    player = await emulator.play(session)
    await player.picture_after(0.0)
    await emulator.call("close", {"_id": session["_id"]})
    await publisher.until_state(PeerState.DISCONNECTED, within=2)
    await player.until_state(PeerState.DISCONNECTED, within=2)
    seen = await emulator.session(session["_id"])
    assert (seen["publishers"], seen["players"]) == (0, 0)
    await publisher.close()
    await player.close()


async def test_two_sessions_run_at_once_and_independently(
    emulator: Any, portrait: bytes, other_portrait: bytes
) -> None:
    dark, light = black(Geometry(640, 480)), black(Geometry(640, 480))
    luma(light)[:] = 200
    sessions = [await emulator.create(image) for image in (portrait, other_portrait)]
    publishers = [
        await emulator.publish(session, picture)
        for session, picture in zip(sessions, (dark, light), strict=True)
    ]
    players = [await emulator.play(session) for session in sessions]
    backs = [(await player.picture_after(0.0))[1] for player in players]
    assert [round(float(luma(back).mean()), -1) for back in backs] == [20, 200]
    await emulator.call("close", {"_id": sessions[0]["_id"]})
    await players[1].picture_after(time.monotonic())
    assert [one["_id"] for one in (await emulator.state())["sessions"]] == [sessions[1]["_id"]]
    for participant in publishers + players:
        await participant.close()


async def test_a_second_publisher_replaces_the_first_one(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    first = await emulator.publish(session, black(Geometry(640, 480)))
    await first.until_state(PeerState.CONNECTED)
    light = black(Geometry(640, 480))
    luma(light)[:] = 200
    second = await emulator.publish(session, light)
    await first.until_state(PeerState.DISCONNECTED)
    player = await emulator.play(session)
    assert luma((await player.picture_after(0.0))[1]).mean() > 150
    assert (await emulator.session(session["_id"]))["publishers"] == 1
    for participant in (first, second, player):
        await participant.close()


async def test_delete_frees_a_connection_and_keeps_the_session(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    player = await emulator.play(session)
    await player.until_state(PeerState.CONNECTED)
    assert (await player.leave()).status == 200
    await player.until_state(PeerState.DISCONNECTED)
    assert (await player.leave()).status == 404
    seen = await emulator.session(session["_id"])
    assert (seen["players"], seen["faceswap_status"]) == (0, 2)
    await player.close()


async def test_a_participant_that_vanishes_is_forgotten(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    player = await emulator.play(session)
    await player.until_state(PeerState.CONNECTED)
    await player.peer.vanish()
    async with asyncio.timeout(8):
        while (await emulator.session(session["_id"]))["players"]:  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.05)


async def test_a_participant_that_never_connects_is_forgotten(
    emulator: Any, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.emulator.rtc.CONNECT_TIMEOUT", 0.5)
    session = await emulator.create(portrait)
    answer = await emulator.http.request(
        "POST",
        f"{emulator.url}/rtc/{session['channel_id']}/3/whep",
        headers={**SDP, **bearer(session)},
        content=await offer(sending=False),
    )
    assert answer.status == 201
    assert (await emulator.session(session["_id"]))["players"] == 1
    await asyncio.sleep(0.8)
    assert (await emulator.session(session["_id"]))["players"] == 0


async def test_a_queuing_session_cannot_be_joined_and_sends_retry_after(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any], portrait: bytes
) -> None:
    emulator = client_of(start_emulator(sessions=SessionRules(queue_seconds=2.5)).url)
    source = [{"path": await emulator.upload(portrait), "opts": "1,1:2,2:3,3:4,4"}]
    session = (await emulator.call("create", {"sourceImage": source}))["data"]
    for user, kind in (("1", "whip"), ("3", "whep")):
        answer = await emulator.http.request(
            "POST",
            f"{emulator.url}/rtc/{session['channel_id']}/{user}/{kind}",
            headers={**SDP, **bearer(session)},
        )
        assert answer.status == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 3


async def offer(*, sending: bool) -> str:
    peer = AiortcPeer(
        geometry=Geometry(640, 480), fps=20, bitrate_kbit=1000, on_state=lambda _state: None
    )
    sdp = await (peer.offer_sending() if sending else peer.offer_receiving())
    await peer.close()
    return sdp


async def test_whip_and_whep_refuse_as_the_rfc_says(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    other = await emulator.create(portrait)
    whip = f"{emulator.url}/rtc/{session['channel_id']}/1/whip"
    whep = f"{emulator.url}/rtc/{session['channel_id']}/3/whep"
    good = {**SDP, **bearer(session)}
    receiving = await offer(sending=False)

    async def status(method: str, url: str, headers: dict[str, str], body: str = "") -> int:
        answer = await emulator.http.request(method, url, headers=headers, content=body)
        if answer.status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
        return int(answer.status)

    assert await status("POST", whip, SDP) == 401
    assert await status("POST", whip, {**SDP, "authorization": "Basic eDp5"}) == 401
    assert await status("POST", whip, {**SDP, **bearer(other)}) == 403
    assert await status("POST", whip.replace("/1/", "/3/"), good) == 404
    assert await status("POST", f"{emulator.url}/rtc/none/1/whip", good) == 404
    assert await status("POST", whip, bearer(session)) == 415
    assert await status("POST", whip, {**good, "content-type": "application/json"}) == 415
    assert await status("POST", whip, good, "no session description") == 400
    assert await status("POST", whip, good, "v=0\r\na=sendonly\r\nm=video nonsense") == 400
    assert await status("POST", whip, good, "v=0\r\na=sendonly\r\nm=audio 9 x 0\r\n") == 422
    sending = await offer(sending=True)
    unknown_codecs = sending.replace(" H264/", " NONE/").replace(" VP8/", " NADA/")
    assert await status("POST", whip, good, unknown_codecs) == 400
    assert await status("POST", whip, good, "v=0\r\n" * 20_000) == 413
    assert await status("POST", whip, good, receiving) == 422
    assert await status("POST", whep, good, await offer(sending=True)) == 422
    assert await status("GET", whip, good) == 405
    assert await status("PUT", whip, good) == 405
    assert await status("GET", whip + "/x", good) == 405
    assert await status("PATCH", whip + "/x", good) == 501
    assert await status("DELETE", whip + "/x", good) == 404
    assert await status("DELETE", whip + "/x", {}) == 401
    assert await status("OPTIONS", whip, {}) == 200
    await emulator.call("close", {"_id": session["_id"]})
    assert await status("POST", whep, good, receiving) == 404


@pytest.mark.parametrize("kind", ["whip", "whep"])
async def test_a_browser_of_any_origin_may_join(emulator: Any, kind: str) -> None:
    url = f"{emulator.url}/rtc/channel/1/{kind}"
    preflight = {
        "origin": "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = await emulator.http.request("OPTIONS", url, headers=preflight)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    answer = await emulator.http.request("POST", url, headers={"origin": "https://example.org"})
    assert answer.headers["access-control-expose-headers"] == "Location"
    answer = await emulator.http.request(
        "OPTIONS", emulator.url + "/emulator/faults", headers=preflight
    )
    assert answer.status == 405
    assert "access-control-allow-origin" not in answer.headers
