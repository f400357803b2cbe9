"""A session with its link: commands in, events out."""

import asyncio
import threading
import time

import pytest
from pydantic import SecretStr

from relayd.akool.session import FaceChoice
from relayd.errors import (
    FaceRejected,
    LibraryUnavailable,
    LinkLost,
    RelaydError,
    ServerFault,
    SessionDoubtful,
    Unavailable,
    WorkerDied,
)
from relayd.relay import events as on
from relayd.relay import worker_link
from relayd.rtc.link import LinkEvent, LinkEventKind
from relayd.rtc.webrtc import engines
from tests.relay.links import FACE, Rig, Worker

OTHER = FaceChoice("http://127.0.0.1:9/b.png")


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


async def test_each_step_from_the_worker_to_the_first_picture_is_reported(rig: Rig) -> None:
    await rig.live()
    assert rig.event_names == [
        "LinkReady", "SessionOpened", "SessionReady", "LinkJoined", "PicturesFlow",
    ]  # fmt: skip
    assert Worker.newest.targets[0].session_id == rig.link.session_id == "x"
    await rig.link.close()
    assert rig.event_names[-1] == "SessionClosed"
    assert rig.link.session_id is None
    assert rig.link.billed == 7.0


class UnstoppableWorker(Worker):
    """Its stop returns when the test lets it."""

    released = threading.Event()

    def stop(self, within: float) -> None:
        self.released.wait(10)


async def test_the_session_is_closed_while_its_worker_hangs_in_its_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_link, "STOP_DEADLINE", 0.3)
    UnstoppableWorker.released.clear()
    rig = Rig(monkeypatch, UnstoppableWorker)
    await rig.live()
    closing = rig.link.close()
    async with asyncio.timeout(5):
        await rig.session.closed.wait()
        assert not closing.done()
        await closing  # and nobody waits for the worker without an end
    assert rig.event_names[-1] == "SessionClosed"
    UnstoppableWorker.released.set()


class BrokenWorker(Worker):
    def stop(self, within: float) -> None:
        raise RuntimeError("cannot join thread before it is started")


async def test_a_session_is_closed_even_if_its_worker_cannot_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch, BrokenWorker)
    await rig.live()
    await rig.link.close()
    assert rig.session.closed.is_set()
    assert rig.event_names[-1] == "SessionClosed"


class UnloadableWorker(Worker):
    def start(self) -> None:
        error = LibraryUnavailable("no library")
        self.emit(LinkEvent(LinkEventKind.REFUSED, error=error))


async def test_a_library_that_cannot_be_loaded_ends_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch, UnloadableWorker)
    rig.link.start()
    lost = await rig.until("LinkLost")
    assert isinstance(lost, on.LinkLost)
    assert isinstance(lost.error, LibraryUnavailable)
    await rig.link.close()


class UnstartableWorker(Worker):
    def start(self) -> None:
        raise OSError("no process left")


async def test_a_worker_that_cannot_be_started_at_all_ends_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch, UnstartableWorker)
    rig.link.start()
    await rig.until("LinkLost")
    await rig.link.close()


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (SessionDoubtful("no answer"), "SessionDoubtful"),
        (ServerFault("failed"), "SessionRefused"),
        (RuntimeError("unexpected"), "SessionDoubtful"),
    ],
)
async def test_the_result_of_a_create_is_reported(
    rig: Rig, refusal: Exception, expected: str
) -> None:
    rig.keeper.refusal = refusal
    rig.link.open(FACE)
    await rig.until(expected)
    await rig.link.close()
    assert not rig.session.closed.is_set()


async def test_a_session_that_could_be_neither_recorded_nor_closed_is_reported_as_doubtful(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unrecorded(_: FaceChoice) -> None:
        rig.keeper.doubtful += 1
        raise Unavailable("no space left")

    monkeypatch.setattr(rig.keeper, "open_session", unrecorded)
    rig.link.open(FACE)
    await rig.until("SessionDoubtful")
    await rig.link.close()
    assert rig.event_names == ["SessionDoubtful", "SessionClosed"]


async def test_a_create_that_is_broken_off_before_its_answer_is_reported_as_doubtful(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: FaceChoice) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            rig.keeper.doubtful += 1
            raise

    monkeypatch.setattr(rig.keeper, "open_session", never)
    rig.link.open(FACE)
    await asyncio.sleep(0)
    await rig.link.close()
    assert rig.event_names == ["SessionDoubtful", "SessionClosed"]


async def test_a_close_ends_the_wait_for_the_sessions_turn_and_a_renewal_under_way(
    rig: Rig,
) -> None:
    rig.session.ready = rig.session.answers_renewal = False
    rig.link.open(FACE)
    await rig.until("SessionOpened")
    rig.link.renew_token()
    await asyncio.sleep(0)
    await rig.link.close()
    assert rig.session.closed.is_set()
    assert rig.event_names == ["SessionOpened", "SessionClosed"]


async def test_a_newer_token_is_handed_to_the_link_and_used_by_the_next_worker(rig: Rig) -> None:
    await rig.live()
    rig.session.newer = SecretStr("a-newer-token")
    Worker.newest.emit(LinkEvent(LinkEventKind.TOKEN_EXPIRING))
    await rig.until("TokenExpiring")
    rig.link.renew_token()
    await asyncio.sleep(0.01)
    assert Worker.newest.tokens == ["a-newer-token"]
    assert "TokenFinal" not in rig.event_names
    rig.events.clear()
    rig.session.token_at = rig.clock.now() - 1000
    rig.link.start()
    await rig.until("LinkReady")
    rig.link.join()
    assert Worker.newest.targets[0].token == "a-newer-token"
    assert Worker.newest.targets[0].token_age == pytest.approx(1000, abs=60)
    await rig.link.close()


async def test_a_token_without_a_newer_one_is_reported_as_the_last(rig: Rig) -> None:
    await rig.live()
    rig.link.renew_token()
    await rig.until("TokenFinal")
    assert Worker.newest.tokens == []
    await rig.link.close()


@pytest.mark.parametrize("refusal", [None, FaceRejected("two faces"), RuntimeError("what?")])
async def test_the_result_of_another_face_is_reported(
    rig: Rig, refusal: RelaydError | None
) -> None:
    await rig.live()
    rig.session.refusal = refusal
    error = await rig.link.update_face(OTHER)
    assert (error is None) is (refusal is None)
    assert rig.event_names[-1] == ("FaceRefused" if refusal else "FaceApplied")
    await rig.link.close()


async def test_a_worker_that_is_replaced_is_stopped_and_ignored(rig: Rig) -> None:
    await rig.live()
    old = Worker.newest
    rig.events.clear()
    rig.link.start()
    await rig.until("LinkReady")
    assert old.stopped
    assert Worker.newest is not old
    old.emit(LinkEvent(LinkEventKind.LOST, error=LinkLost("gone")))
    await asyncio.sleep(0.01)
    assert rig.event_names == ["LinkReady"]
    await rig.link.close()


async def test_a_restart_under_way_starts_no_worker_after_the_close(rig: Rig) -> None:
    await rig.live()
    last = Worker.newest
    rig.link.start()
    await rig.link.close()
    assert Worker.newest is last
    assert last.stopped


async def test_a_worker_that_dies_is_reported_with_how(rig: Rig) -> None:
    await rig.live()
    Worker.newest.emit(LinkEvent(LinkEventKind.DIED, error=WorkerDied("SIGSEGV")))
    lost = await rig.until("LinkLost")
    assert isinstance(lost, on.LinkLost)
    assert isinstance(lost.error, WorkerDied)
    await rig.link.close()


async def test_the_worker_after_two_that_died_with_libwebrtc_gets_aiortc(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "installed", lambda: ["libwebrtc", "aiortc"])
    taken = []
    await rig.live()
    for _ in range(2):
        taken.append(Worker.newest.targets[0].engine)
        rig.events.clear()
        Worker.newest.emit(LinkEvent(LinkEventKind.DIED, error=WorkerDied("SIGSEGV")))
        await rig.until("LinkLost")
        rig.link.start()
        await rig.until("LinkReady")
        rig.link.join()
    assert [*taken, Worker.newest.targets[0].engine] == ["auto", "auto", "aiortc"]
    await rig.link.close()


async def test_pictures_that_stop_are_reported_once_and_again_when_they_are_back(rig: Rig) -> None:
    await rig.live()
    rig.events.clear()
    last = rig.clock.now()
    Worker.newest.show(last)
    while "PicturesStopped" not in rig.event_names:
        rig.send()
        await asyncio.sleep(0.02)
    stopped = rig.events[0]
    assert isinstance(stopped, on.PicturesStopped)
    assert stopped.last_at == last
    for _ in range(20):  # twice the limit
        rig.send()
        await asyncio.sleep(0.02)
    Worker.newest.show(rig.clock.now())
    await rig.until("PicturesFlow")
    assert rig.event_names == ["PicturesStopped", "PicturesFlow"]
    await rig.link.close()


async def test_silence_of_the_engine_is_no_stall_while_nothing_is_sent(rig: Rig) -> None:
    await rig.live()
    rig.events.clear()
    await asyncio.sleep(0.8)  # four times the limit
    assert rig.event_names == []
    await rig.link.close()


async def test_swapped_pictures_pass_the_gate_while_the_session_is_shown(rig: Rig) -> None:
    await rig.live()
    Worker.newest.show(time.monotonic())
    rig.gate.show(1)
    Worker.newest.show(time.monotonic())
    assert rig.gate.passed == 1
    await rig.link.close()
