"""A session's life with the fake service: no opened session is lost."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import stamina

from relayd.akool.client import AkoolClient
from relayd.akool.closing import close_orphaned_sessions
from relayd.akool.credentials import ApiKey
from relayd.akool.journal import Journal
from relayd.akool.session import (
    LANDMARKS_KEPT_FOR,
    FaceChoice,
    Readiness,
    SessionKeeper,
)
from relayd.errors import (
    CredentialsRefused,
    FaceRejected,
    QuotaExhausted,
    ServerFault,
    ServiceError,
    SessionDoubtful,
    SessionFailed,
    Unavailable,
)
from relayd.http.client import HttpClient

if TYPE_CHECKING:
    from tests.akool.conftest import Service

FACE = FaceChoice("https://example.org/face.png", "1,2:3,4:5,6:7,8")
UNMARKED = FaceChoice("https://example.org/face.png")


class FakeTime:
    """Sleeps without waiting; records every sleep."""

    def __init__(self) -> None:
        self.moment = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.moment

    async def sleep(self, seconds: float) -> None:
        self.moment += seconds
        self.slept.append(seconds)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def keeper(client: AkoolClient, journal: Journal, fake_time: FakeTime) -> SessionKeeper:
    return SessionKeeper(
        client,
        journal,
        relay="studio",
        now=fake_time.now,
        sleep=fake_time.sleep,
        answer_within=1.0,
        close_within=1.0,
    )


def ids(journal: Journal) -> list[str]:
    return [record.id for record in journal.entries()]


def slow_session(service: "Service", seconds: float) -> Callable[..., Awaitable[None]]:
    """Make a session at once, and answer only after a while."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        body = json.dumps(service.session()).encode()
        await asyncio.sleep(seconds)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    return reply


async def test_a_session_is_in_the_journal_until_its_close_is_confirmed(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    session = await keeper.open_session(FACE)
    assert ids(journal) == [session.live.id] == list(service.open)
    assert await session.close()
    assert await session.close()
    assert (ids(journal), service.open, service.count("close")) == ([], set(), 1)


async def test_landmarks_are_requested_once_per_image(
    service: "Service", keeper: SessionKeeper
) -> None:
    for _ in range(2):
        await (await keeper.open_session(UNMARKED)).close()
    assert service.count("detect_faces") == 1
    opts = [call.body["sourceImage"][0]["opts"] for call in service.calls if call.name == "create"]
    assert opts == ["249,510:460,516:343,657:351,739"] * 2


def two_pictures(service: "Service") -> tuple[str, str]:
    """Let one face be found at first, and then another; returns their landmarks."""
    both = "10,10:20,10:15,20:15,25", "300,300:320,300:310,320:310,330"
    service.on("detect_faces", *({"faces_obj": {"0": {"landmarks_str": [one]}}} for one in both))
    return both


async def test_a_new_picture_at_the_same_url_is_noticed_in_time(
    service: "Service", keeper: SessionKeeper, fake_time: FakeTime
) -> None:
    first, second = two_pictures(service)
    assert await keeper.landmarks(UNMARKED) == first
    fake_time.moment = LANDMARKS_KEPT_FOR - 1
    assert await keeper.landmarks(UNMARKED) == first
    fake_time.moment = LANDMARKS_KEPT_FOR
    assert await keeper.landmarks(UNMARKED) == second


async def test_landmarks_are_requested_again_when_a_face_is_set_again(
    service: "Service", keeper: SessionKeeper
) -> None:
    first, second = two_pictures(service)
    assert await keeper.landmarks(UNMARKED) == first
    assert await keeper.landmarks(UNMARKED, fresh=True) == second
    assert await keeper.landmarks(UNMARKED) == second
    assert service.count("detect_faces") == 2


async def test_a_fresh_detection_without_a_face_forgets_the_old_landmarks(
    service: "Service", keeper: SessionKeeper
) -> None:
    await keeper.landmarks(UNMARKED)
    service.on("detect_faces", {"error_code": 0, "faces_obj": {}})
    for fresh in (True, False):
        with pytest.raises(FaceRejected, match="no face"):
            await keeper.landmarks(UNMARKED, fresh=fresh)


async def test_a_session_counts_its_seconds_through_suspend_until_its_close_is_confirmed(
    service: "Service", client: AkoolClient, journal: Journal
) -> None:
    boottime = 1000.0
    keeper = SessionKeeper(client, journal, relay="studio", boottime=lambda: boottime)
    session = await keeper.open_session(FACE)
    boottime += 3600
    assert session.seconds() == 3600
    service.on("close", {"code": 1101}, {"code": 1000})
    assert not await session.close()
    boottime += 60
    assert await session.close()
    boottime += 60
    assert session.seconds() == 3660


async def test_given_landmarks_are_not_requested(service: "Service", keeper: SessionKeeper) -> None:
    await (await keeper.open_session(FACE)).close()
    assert service.count("detect_faces") == 0


async def test_no_face_opens_nothing(service: "Service", keeper: SessionKeeper) -> None:
    service.on("detect_faces", {"error_code": 0, "faces_obj": {}})
    with pytest.raises(FaceRejected, match="no face"):
        await keeper.open_session(UNMARKED)
    assert service.count("create") == 0


async def test_several_faces_are_listed_to_choose_from(
    service: "Service", keeper: SessionKeeper
) -> None:
    found = ["1,2:3,4:5,6:7,8", "9,9:8,8:7,7:6,6"]
    service.on("detect_faces", {"error_code": 0, "landmarks_str": found})
    with pytest.raises(FaceRejected) as caught:
        await keeper.open_session(UNMARKED)
    assert all(f'"{landmarks}"' in str(caught.value) for landmarks in found)
    assert "[face] landmarks" in caught.value.hint
    assert service.count("create") == 0


async def test_a_journal_that_cannot_be_written_opens_nothing(
    service: "Service", client: AkoolClient, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("")
    keeper = SessionKeeper(client, Journal(tmp_path / "state"), relay="studio")
    with pytest.raises(Unavailable, match=r"\[state\] directory"):
        await keeper.open_session(FACE)
    assert service.count("create") == 0


async def test_a_session_that_cannot_be_recorded_is_closed_at_once(
    service: "Service", keeper: SessionKeeper, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise Unavailable("no space left")

    monkeypatch.setattr(journal, "record", full)
    with pytest.raises(Unavailable):
        await keeper.open_session(FACE)
    assert (service.count("create"), service.open) == (1, set())


@pytest.mark.parametrize("field", ["channel_id", "front_rtc_token"])
async def test_a_session_without_a_needed_field_is_closed_and_named(
    service: "Service", keeper: SessionKeeper, journal: Journal, field: str
) -> None:
    answer = service.session()
    del answer["data"][field]
    service.on("create", answer)
    with pytest.raises(ServerFault, match=field):
        await keeper.open_session(FACE)
    assert (service.count("create"), service.open, ids(journal)) == (1, set(), [])


async def test_a_broken_session_that_cannot_be_closed_stays_in_the_journal(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("create", {"code": 1000, "data": {"_id": "broken"}})
    service.on("close", {"code": 1016})
    with pytest.raises(ServerFault, match="channel_id"):
        await keeper.open_session(FACE)
    assert [(record.id, record.held) for record in journal.entries()] == [("broken", False)]


async def test_refused_credentials_open_nothing(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("create", {"code": 1101})
    with pytest.raises(CredentialsRefused):
        await keeper.open_session(FACE)
    assert ids(journal) == []


async def test_ready_is_when_the_service_says_processing(
    service: "Service", keeper: SessionKeeper, fake_time: FakeTime
) -> None:
    session = await keeper.open_session(FACE)
    queued, ready = ({"code": 1000, "data": {"faceswap_status": n}} for n in (1, 2))
    service.on("info", queued, queued, ready)
    assert await session.wait_ready(poll=1.0, within=60.0) is Readiness.CONFIRMED
    assert fake_time.slept == [1.0, 1.0, 1.0]
    await session.close()


async def test_ready_at_once_needs_no_status_call(
    service: "Service", keeper: SessionKeeper
) -> None:
    answer = service.session()
    answer["data"]["faceswap_status"] = 2
    service.on("create", answer)
    session = await keeper.open_session(FACE)
    assert await session.wait_ready() is Readiness.CONFIRMED
    assert service.count("info") == 0
    await session.close()


async def test_ready_is_assumed_without_a_status_call(
    service: "Service", keeper: SessionKeeper
) -> None:
    service.on("info", {"code": 404, "msg": "Not Found"})
    session = await keeper.open_session(FACE)
    assert await session.wait_ready() is Readiness.ASSUMED
    assert service.count("info") == 1
    await session.close()


async def test_ready_is_assumed_after_three_failures_in_a_row(
    service: "Service", keeper: SessionKeeper
) -> None:
    session = await keeper.open_session(FACE)
    bad: dict[str, Any] = {"code": 1017}
    queued: dict[str, Any] = {"code": 1000, "data": {"faceswap_status": 1}}
    service.on("info", bad, bad, queued, bad, bad, bad)
    assert await session.wait_ready() is Readiness.ASSUMED
    assert service.count("info") == 6
    await session.close()


async def test_a_newer_token_replaces_the_sessions_own(
    service: "Service", keeper: SessionKeeper
) -> None:
    session = await keeper.open_session(FACE)
    first = session.token
    service.on("info", {"code": 1000, "data": {"front_rtc_token": first.get_secret_value()}})
    assert not await session.renew_token()
    service.on("info", {"code": 1000, "data": {"front_rtc_token": "007eJx-a-newer-one"}})
    assert await session.renew_token()
    assert session.token.get_secret_value() == "007eJx-a-newer-one"
    assert not await session.renew_token()
    service.on("info", {"code": 1101})
    assert not await session.renew_token()
    await session.close()


@pytest.mark.parametrize(("status", "text"), [(3, "ended"), (4, "gave the session up")])
async def test_a_session_that_ended_before_it_was_ready_failed(
    service: "Service", keeper: SessionKeeper, status: int, text: str
) -> None:
    session = await keeper.open_session(FACE)
    service.status = status
    with pytest.raises(SessionFailed, match=text):
        await session.wait_ready()
    assert await session.close()


async def test_an_endless_queue_fails_in_time(
    service: "Service", keeper: SessionKeeper, fake_time: FakeTime
) -> None:
    session = await keeper.open_session(FACE)
    service.status = 1
    with pytest.raises(SessionFailed, match="queued"):
        await session.wait_ready(poll=1.0, within=5.0)
    assert fake_time.moment == 5.0
    await session.close()


async def test_the_face_changes_within_a_session(service: "Service", keeper: SessionKeeper) -> None:
    session = await keeper.open_session(FACE)
    await session.update_face(FaceChoice("https://example.org/other.png"))
    assert service.calls[-1].body == {
        "_id": session.live.id,
        "sourceImage": [
            {"path": "https://example.org/other.png", "opts": "249,510:460,516:343,657:351,739"}
        ],
    }
    await session.close()


async def test_an_unconfirmed_close_is_done_later_as_an_orphan(
    service: "Service", client: AkoolClient, keeper: SessionKeeper, journal: Journal
) -> None:
    session = await keeper.open_session(FACE)
    service.on("close", {"code": 1016})
    assert not await session.close()
    assert ids(journal) == [session.live.id]
    service._scripts.clear()
    (result,) = await close_orphaned_sessions(client, journal)
    assert (result.closed, result.reason, result.record.id) == (True, "", session.live.id)
    assert (ids(journal), service.open) == ([], set())
    assert await session.close()


async def test_a_close_may_be_tried_again(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    session = await keeper.open_session(FACE)
    service.on("close", {"code": 1101}, {"code": 1000})
    assert not await session.close()
    assert await session.close()
    assert ids(journal) == []


async def test_closes_at_the_same_time_send_one(service: "Service", keeper: SessionKeeper) -> None:
    session = await keeper.open_session(FACE)
    assert list(await asyncio.gather(session.close(), session.close())) == [True, True]
    assert service.count("close") == 1


async def test_orphans_report_each_session_and_keep_what_failed(
    service: "Service", client: AkoolClient, keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("close", {"code": 1016})
    for _ in range(6):
        await (await keeper.open_session(FACE)).close()
    refused = {"code": 1009, "msg": "not yours"}
    service.on("close", {"code": 1000}, refused, {"code": 1008}, refused, {"code": 1000})
    results = await close_orphaned_sessions(client, journal)
    assert [result.closed for result in results].count(True) == 4
    assert all("not yours" in result.reason for result in results if not result.closed)
    assert len(ids(journal)) == 2


async def test_a_held_session_is_no_orphan(
    service: "Service", client: AkoolClient, keeper: SessionKeeper, journal: Journal
) -> None:
    session = await keeper.open_session(FACE)
    assert await close_orphaned_sessions(client, journal) == []
    assert service.open == {session.live.id}
    await session.close()


async def test_only_the_orphan_named_is_closed(
    service: "Service", client: AkoolClient, keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("close", {"code": 1016})
    sessions = [await keeper.open_session(FACE) for _ in range(2)]
    for session in sessions:
        await session.close()
    service._scripts.clear()
    chosen, other = (session.live.id for session in sessions)
    (result,) = await close_orphaned_sessions(client, journal, session_id=chosen)
    assert (result.record.id, ids(journal)) == (chosen, [other])
    assert not journal.entries()[0].held


async def test_an_orphan_of_another_service_is_left_alone(
    service: "Service",
    client: AkoolClient,
    keeper: SessionKeeper,
    journal: Journal,
    http: HttpClient,
) -> None:
    session = await keeper.open_session(FACE)
    session._entry.release()
    elsewhere = AkoolClient("https://openapi.elsewhere.example", ApiKey("the-key"), http)
    (result,) = await close_orphaned_sessions(elsewhere, journal)
    assert not result.closed
    assert service.url in result.reason
    assert ids(journal) == [session.live.id]
    assert await session.close()


async def test_an_orphan_that_another_keys_service_does_not_know_stays_in_the_journal(
    service: "Service",
    client: AkoolClient,
    keeper: SessionKeeper,
    journal: Journal,
    http: HttpClient,
) -> None:
    session = await keeper.open_session(FACE)
    session._entry.release()
    service.open.clear()  # as it looks from another account
    other = AkoolClient(service.url, ApiKey("another-key"), http)
    (result,) = await close_orphaned_sessions(other, journal)
    assert not result.closed
    assert "another" in result.reason
    assert ids(journal) == [session.live.id]
    assert await session.close()
    assert ids(journal) == []


async def test_a_create_in_flight_when_cancelled_is_awaited_and_closed(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("create", slow_session(service, 0.3))
    opening = asyncio.create_task(keeper.open_session(FACE))
    await service.arrived("create")
    assert len(service.open) == 1
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (service.count("create"), service.count("close")) == (1, 1)
    assert (service.open, ids(journal)) == (set(), [])


async def test_repeated_cancellations_change_nothing(
    service: "Service", keeper: SessionKeeper, journal: Journal
) -> None:
    service.on("create", slow_session(service, 0.3))
    opening = asyncio.create_task(keeper.open_session(FACE))
    await service.arrived("create")
    while not opening.done():
        opening.cancel()
        await asyncio.sleep(0.01)
    assert opening.cancelled()
    assert (service.open, ids(journal)) == (set(), [])


@pytest.mark.parametrize("step", range(25))
async def test_cancelled_at_any_moment_no_session_stays_open(
    service: "Service", keeper: SessionKeeper, journal: Journal, step: int
) -> None:
    opening = asyncio.create_task(keeper.open_session(UNMARKED))
    await asyncio.sleep(step * 0.001)
    opening.cancel()
    try:
        session = await opening
    except asyncio.CancelledError:
        pass
    else:
        await session.close()
    assert (service.open, ids(journal)) == (set(), [])


async def test_cancelled_while_recording_closes_the_session(
    service: "Service", keeper: SessionKeeper, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, real = asyncio.Event(), journal.record
    loop = asyncio.get_running_loop()

    def slow_disk(*args: Any, **kwargs: Any) -> Any:
        loop.call_soon_threadsafe(recording.set)
        time.sleep(1.2)  # longer than the keeper waits for an answer
        return real(*args, **kwargs)

    monkeypatch.setattr(journal, "record", slow_disk)
    opening = asyncio.create_task(keeper.open_session(FACE))
    await recording.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (service.open, ids(journal)) == (set(), [])


async def test_a_cancelled_create_without_an_answer_ends_in_time_and_is_logged(
    service: "Service", keeper: SessionKeeper, capsys: pytest.CaptureFixture[str]
) -> None:
    service.on("create", slow_session(service, 1.5))
    opening = asyncio.create_task(keeper.open_session(FACE))
    await service.arrived("create")
    opening.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert 0.9 < time.monotonic() - began < 1.4
    assert "session.maybe_open" in capsys.readouterr().out


async def test_a_lost_answer_to_create_is_logged_and_not_repeated(
    service: "Service", keeper: SessionKeeper, capsys: pytest.CaptureFixture[str]
) -> None:
    service.on("create", b"")
    with pytest.raises(SessionDoubtful):
        await keeper.open_session(FACE)
    assert service.count("create") == 1
    assert "session.maybe_open" in capsys.readouterr().out


@pytest.mark.parametrize("code", [1005, 1015])
async def test_a_create_that_certainly_did_nothing_is_repeated(
    service: "Service", keeper: SessionKeeper, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    service.on("create", {"code": code}, service.session())
    session = await keeper.open_session(FACE)
    assert service.count("create") == 2
    assert "session.maybe_open" not in capsys.readouterr().out
    assert await session.close()


async def test_cancelled_between_two_tries_sends_no_further_create(
    service: "Service", keeper: SessionKeeper
) -> None:
    service.on("create", {"code": 1005})
    with stamina.set_testing(False):
        opening = asyncio.create_task(keeper.open_session(FACE))
        await service.arrived("create")
        await asyncio.sleep(0.2)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert service.count("create") == 1


async def test_a_cancelled_open_that_fails_ends_as_cancelled(
    service: "Service", keeper: SessionKeeper
) -> None:
    async def refuse(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"code": 1104}')

    service.on("create", refuse)
    opening = asyncio.create_task(keeper.open_session(FACE))
    await service.arrived("create")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_no_quota_is_an_error_and_opens_nothing(
    service: "Service", keeper: SessionKeeper
) -> None:
    service.on("create", {"code": 1104})
    with pytest.raises(QuotaExhausted):
        await keeper.open_session(FACE)


async def test_no_token_or_key_reaches_disk_or_log(
    service: "Service", keeper: SessionKeeper, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = await keeper.open_session(UNMARKED)
    service.on("close", {"code": 1101, "msg": "bad key the-key-of-the-tests"})
    await session.close()
    out, err = capsys.readouterr()
    written = _all_text(tmp_path)
    for secret in ("007eJxTYFj-uGvaue3C3", "the-key-of-the-tests"):
        assert secret not in out + err + written


def _all_text(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


async def test_without_network_the_session_stays_in_the_journal(
    http: HttpClient,
    journal: Journal,
    service: "Service",
    keeper: SessionKeeper,
    client: AkoolClient,
) -> None:
    session = await keeper.open_session(FACE)
    client.base_url = "http://127.0.0.1:1"
    with stamina.set_testing(False):
        began = time.monotonic()
        assert not await session.close(within=0.5)
        assert time.monotonic() - began < 1.5
    client.base_url = service.url
    with pytest.raises(ServiceError):
        await client.update("other", FACE.image_url, FACE.landmarks)
    (result,) = await close_orphaned_sessions(client, journal)
    assert result.closed
    assert service.open == set()
