import asyncio
import time
from typing import Any

import numpy as np
import pytest

from relayd.emulator.faults import FAULTS, FaultBoard, Stage
from relayd.errors import ServerFault, ServiceUnreachable, UsageError
from relayd.media.frames import I420, Geometry, black, luma
from relayd.rtc.webrtc.engine import PeerState
from tests.support.clock import FakeClock

OPTS = "1,1:2,2:3,3:4,4"
UNKNOWN = {"_id": "0" * 24}


def shade(value: int) -> I420:
    picture = black(Geometry(64, 48))
    luma(picture)[:] = value
    return picture


def test_a_fault_applies_to_the_given_number_of_calls() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "cut", "endpoint": "create", "calls": 2})
    assert [len(board.take(Stage.ANSWER, endpoint="close")) for _ in range(3)] == [0, 0, 0]
    assert [len(board.take(Stage.ANSWER, endpoint="create")) for _ in range(3)] == [1, 1, 0]
    assert board.active() == []


def test_a_fault_applies_for_the_given_time() -> None:
    clock = FakeClock()
    board = FaultBoard(clock)
    board.set({"fault": "stall", "seconds": 2.5})
    assert board.apply_to_picture("any", shade(1), shade(2)) is None
    clock.time += 2.5
    shown = board.apply_to_picture("any", shade(1), shade(2))
    assert shown is not None
    assert luma(shown).mean() == 2


def test_a_fault_without_limit_applies_until_it_is_cleared() -> None:
    board = FaultBoard(FakeClock())
    first, second = board.set({"fault": "garbage"}), board.set({"fault": "slow"})
    for _ in range(50):
        assert board.take(Stage.ANSWER, endpoint="info") == [first, second]
    assert board.clear(first.id) == 1
    assert board.active() == [second]
    assert board.clear(first.id) == 0
    assert board.clear() == 1
    assert board.active() == []


def test_a_picture_fault_affects_only_its_session() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "stall", "session": "one"})
    assert board.apply_to_picture("one", shade(1), shade(2)) is None
    assert board.apply_to_picture("two", shade(1), shade(2)) is not None


def test_freeze_repeats_one_picture_of_each_session() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "freeze"})
    shown = [board.apply_to_picture("one", shade(1), shade(value)) for value in (10, 20, 30)]
    assert [luma(picture).mean() for picture in shown if picture is not None] == [10, 10, 10]
    other = board.apply_to_picture("two", shade(1), shade(40))
    assert other is not None
    assert luma(other).mean() == 40


def test_unswapped_returns_the_source() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "unswapped"})
    source = shade(1)
    assert board.apply_to_picture("one", source, shade(2)) is source


def test_low_rate_lets_few_pictures_through() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "low_rate", "fps": 2.0})
    assert board.apply_to_picture("one", shade(1), shade(2)) is not None
    assert [board.apply_to_picture("one", shade(1), shade(2)) for _ in range(5)] == [None] * 5


def test_lag_shows_pictures_later() -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "lag", "delay": 0.02})
    assert board.apply_to_picture("one", shade(1), shade(10)) is None
    time.sleep(0.021)
    late = board.apply_to_picture("one", shade(1), shade(20))
    assert late is not None
    assert luma(late).mean() == 10


@pytest.mark.parametrize("kind", ["noise", "green", "garbled"])
def test_corrupt_spoils_the_picture_and_keeps_its_size(kind: str) -> None:
    board = FaultBoard(FakeClock())
    board.set({"fault": "corrupt", "kind": kind})
    swapped = shade(0)
    luma(swapped)[:] = np.arange(64, dtype=np.uint8) * 3
    kept = swapped.copy()
    spoiled = board.apply_to_picture("one", shade(1), swapped)
    assert spoiled is not None
    assert spoiled.shape == swapped.shape
    assert np.abs(luma(spoiled).astype(int) - luma(swapped)).mean() > 20
    assert (swapped == kept).all()


@pytest.mark.parametrize(
    ("request_body", "text"),
    [
        ([], "fault is one of"),
        ({}, "fault is one of"),
        ({"fault": "meteor"}, "fault is one of"),
        ({"fault": []}, "fault is one of"),
        ({"fault": "slow", "seconds": 10**400}, "seconds is zero or more, up to"),
        ({"fault": "slow", "delay": "long"}, "delay is a float"),
        ({"fault": "slow", "delay": -1}, "delay is zero or more"),
        ({"fault": "slow", "delay": float("nan")}, "delay is zero or more"),
        ({"fault": "slow", "dealy": 1}, "slow has no 'dealy'"),
        ({"fault": "cut", "calls": 1.5}, "calls is a int"),
        ({"fault": "cut", "calls": True}, "calls is a int"),
        ({"fault": "cut", "endpoint": "nowhere"}, "endpoint is one of"),
        ({"fault": "corrupt", "kind": "pink"}, "kind is one of"),
        ({"fault": "low_rate", "fps": 0.0}, "fps is above zero"),
        ({"fault": "http_status", "status": 7}, "status is"),
        ({"fault": "http_status", "status": 204}, "status is"),
        ({"fault": "no_token", "fields": []}, "fields is a dict"),
    ],
)
def test_an_invalid_request_is_refused_by_name(request_body: object, text: str) -> None:
    board = FaultBoard(FakeClock())
    with pytest.raises(UsageError, match=text):
        board.set(request_body)
    assert board.active() == []


@pytest.mark.parametrize(
    "request_body",
    [
        b'{"fault": "slow", "session": "\\ud800"}',
        b'{"fault": "refuse", "msg": "\\ud800"}',
        b'{"fault": "empty_channel", "fields": {"x": NaN}}',
        b'{"fault": "empty_channel", "fields": {"x": 1e400}}',
    ],
)
async def test_a_request_that_cannot_be_sent_back_is_refused(
    emulator: Any, request_body: bytes
) -> None:
    headers = {"content-type": "application/json"}
    answer = await emulator.http.request(
        "POST", emulator.url + "/emulator/faults", content=request_body, headers=headers
    )
    assert answer.status == 400
    assert (await emulator.state())["faults"] == []


async def test_each_known_fault_is_listed_with_its_meaning(emulator: Any) -> None:
    listed = (await emulator.get("/emulator/faults")).json()
    assert listed["known"].keys() == FAULTS.keys()
    assert all(one["meaning"] for one in listed["known"].values())
    await emulator.fault(fault="slow", delay=0.0)
    assert [one["fault"] for one in (await emulator.state())["faults"]] == ["slow"]
    await emulator.http.request("DELETE", emulator.url + "/emulator/faults")
    assert (await emulator.state())["faults"] == []
    answer = await emulator.post("/emulator/faults", {"fault": "meteor"})
    assert (answer.status, "fault is one of" in answer.json()["error"]) == (400, True)
    answer = await emulator.http.request(
        "POST", emulator.url + "/emulator/faults", content=b'{"fault": "cut"}'
    )
    assert answer.status == 400


async def test_refuse_answers_with_any_code_on_any_endpoint(emulator: Any) -> None:
    await emulator.fault(fault="refuse", code=1104, msg="Insufficient quota", endpoint="close")
    assert await emulator.call("close", UNKNOWN) == {"code": 1104, "msg": "Insufficient quota"}
    assert (await emulator.call("info", UNKNOWN))["code"] == 1008


@pytest.mark.parametrize(("status", "wait"), [(500, 0), (502, 0), (429, 7), (404, 0)])
async def test_http_status_answers_with_a_page(emulator: Any, status: int, wait: int) -> None:
    await emulator.fault(fault="http_status", status=status, retry_after=wait, calls=1)
    answer = await emulator.post("info", UNKNOWN)
    assert answer.status == status
    assert answer.headers.get("retry-after") == (str(wait) if wait else None)
    assert answer.text.startswith("<html>")
    assert (await emulator.post("info", UNKNOWN)).status == 200


async def test_no_info_removes_only_the_status_call(emulator: Any) -> None:
    await emulator.fault(fault="no_info")
    assert (await emulator.post("info", UNKNOWN)).status == 404
    assert (await emulator.post("close", UNKNOWN)).status == 200


async def test_slow_does_the_work_at_once_and_answers_late(emulator: Any, portrait: bytes) -> None:
    body = {"sourceImage": [{"path": await emulator.upload(portrait), "opts": OPTS}]}
    await emulator.fault(fault="slow", delay=1.0, endpoint="create")
    began = time.monotonic()
    creating = asyncio.create_task(emulator.call("create", body))
    async with asyncio.timeout(0.9):
        while not (await emulator.state())["sessions"]:  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.02)
    assert (await creating)["code"] == 1000
    assert time.monotonic() - began >= 1.0


async def test_cut_truncates_the_answer_after_the_work_was_done(
    emulator: Any, portrait: bytes
) -> None:
    body = {"sourceImage": [{"path": await emulator.upload(portrait), "opts": OPTS}]}
    await emulator.fault(fault="cut", endpoint="create", calls=1)
    with pytest.raises(ServiceUnreachable):
        await emulator.post("create", body)
    assert len((await emulator.state())["sessions"]) == 1


async def test_garbage_is_no_json(emulator: Any) -> None:
    await emulator.fault(fault="garbage", endpoint="info")
    answer = await emulator.post("info", UNKNOWN)
    assert answer.status == 200
    with pytest.raises(ServerFault):
        answer.json()


async def test_old_shape_answers_as_older_versions_did(emulator: Any, portrait: bytes) -> None:
    url = await emulator.upload(portrait)
    await emulator.fault(fault="old_shape")
    answer = await emulator.call("getToken", {"clientId": "a", "clientSecret": "b"})
    assert answer.keys() == {"code", "token"}
    answer = await emulator.call("detect_faces", {"url": url})
    assert answer["error_code"] == 0
    assert "faces_obj" not in answer
    assert answer["landmarks_str"][0].count(":") == 3


async def test_old_shape_leaves_answers_alone_that_are_no_json(emulator: Any) -> None:
    await emulator.fault(fault="http_status", status=502)
    await emulator.fault(fault="old_shape")
    assert (await emulator.post("info", UNKNOWN)).status == 502


@pytest.mark.parametrize(
    ("fault", "field"), [("empty_channel", "channel_id"), ("no_token", "front_rtc_token")]
)
async def test_a_create_may_lack_what_is_needed_to_join(
    emulator: Any, portrait: bytes, fault: str, field: str
) -> None:
    body = {"sourceImage": [{"path": await emulator.upload(portrait), "opts": OPTS}]}
    await emulator.fault(fault=fault, calls=1)
    data = (await emulator.call("create", body))["data"]
    assert data[field] == ""
    assert (await emulator.session(data["_id"]))["end_reason"] is None
    assert (await emulator.call("create", body))["data"][field]


async def test_queue_lets_new_sessions_wait_longer(emulator: Any, portrait: bytes) -> None:
    await emulator.fault(fault="queue", queue_seconds=0.7, calls=1)
    session = await emulator.create(portrait)
    assert (await emulator.session(session["_id"]))["age_seconds"] >= 0.7


@pytest.mark.parametrize(("fault", "status"), [("end_session", 3), ("fail_session", 4)])
async def test_a_session_may_end_by_itself(
    emulator: Any, portrait: bytes, fault: str, status: int
) -> None:
    ended, other = [await emulator.create(portrait) for _ in range(2)]
    player = await emulator.play(ended)
    await player.until_state(PeerState.CONNECTED)
    struck = await emulator.fault(fault=fault, session=ended["_id"])
    assert struck["sessions"] == [ended["_id"]]
    await player.until_state(PeerState.DISCONNECTED)
    info = await emulator.call("info", {"_id": ended["_id"]})
    assert info["data"]["faceswap_status"] == status
    assert [one["_id"] for one in (await emulator.state())["sessions"]] == [other["_id"]]
    await player.close()


async def test_drop_rtc_lets_connections_die_without_a_close(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, black(Geometry(640, 480)))
    player = await emulator.play(session)
    await player.picture_after(0.0)
    await emulator.fault(fault="drop_rtc")
    await asyncio.sleep(0.5)  # a close takes some ms; silence is noticed by consent checks
    assert publisher.states[-1] is player.states[-1] is PeerState.CONNECTED
    await publisher.until_state(PeerState.DISCONNECTED)
    await player.until_state(PeerState.DISCONNECTED)
    seen = await emulator.session(session["_id"])
    assert (seen["faceswap_status"], seen["players"], seen["publishers"]) == (2, 0, 0)
    await publisher.close()
    await player.close()


async def test_stall_stops_the_pictures_and_keeps_the_connection(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    publisher = await emulator.publish(session, black(Geometry(640, 480)))
    player = await emulator.play(session)
    await player.picture_after(0.0)
    fault = await emulator.fault(fault="stall", session=session["_id"])
    await asyncio.sleep(0.5)
    with pytest.raises(TimeoutError):
        await player.picture_after(time.monotonic(), within=1.5)
    assert player.states[-1] is PeerState.CONNECTED
    await emulator.http.request("DELETE", f"{emulator.url}/emulator/faults/{fault['id']}")
    await player.picture_after(time.monotonic(), within=2)
    await publisher.close()
    await player.close()


async def test_faults_of_the_rtc_endpoints_affect_whip_and_whep(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    for name, user in (("whip", 1), ("whep", 3)):
        await emulator.fault(fault="http_status", status=503, retry_after=2, endpoint=name)
        answer = await emulator.post(f"/rtc/{session['channel_id']}/{user}/{name}", None)
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")


async def test_reset_clears_everything(emulator: Any, portrait: bytes) -> None:
    await emulator.create(portrait)
    await emulator.fault(fault="garbage")
    state = (await emulator.post("/emulator/reset", {})).json()
    assert (state["sessions"], state["faults"], state["credit"]) == ([], [], 1000.0)
    assert (await emulator.call("info", UNKNOWN))["code"] == 1008
