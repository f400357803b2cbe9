"""What goes wrong at the far side, and what the outputs show meanwhile."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.logs import LogEvent
from tests.support.stage import BUSY_GAP, PORTRAIT, Emulator, RunningRelay, wait_for, workers_of

StartRelay = Callable[..., RunningRelay]
PORTRAIT2 = PORTRAIT.with_name("portrait2.png")

pytestmark = pytest.mark.relay


@pytest.fixture
def live(start_relay: StartRelay) -> RunningRelay:
    relay = start_relay("rtc.stall_timeout=1.0")
    relay.wait_state("live")
    return relay


def swapped(relay: RunningRelay) -> int:
    return int(relay.status()["frames"]["swapped"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_replaced_within_the_same_session(
    live: RunningRelay, emulator: Emulator, number: int
) -> None:
    before = live.status()
    os.kill(workers_of(live)[0].pid, number)
    wait_for("the loss is seen", lambda: live.status()["reconnects"]["link"] == 1, 3)
    live.wait_state("live", within=8)
    after = live.status()
    assert after["session_id"] == before["session_id"]
    assert len(emulator.sessions()) == 1
    assert signal.Signals(number).name in live.events()


def test_a_worker_that_hangs_is_replaced(live: RunningRelay) -> None:
    worker = workers_of(live)[0]
    worker.suspend()
    wait_for("the loss is seen", lambda: live.status()["reconnects"]["link"] == 1, 4)
    live.wait_state("live", within=10)
    assert not worker.is_running()


def test_connections_that_die_without_a_goodbye_come_back(
    live: RunningRelay, emulator: Emulator
) -> None:
    session = live.status()["session_id"]
    emulator.fault("drop_rtc")
    live.wait_state("degraded", within=5)
    live.wait_state("live", within=12)
    assert live.status()["session_id"] == session


def test_swapped_video_that_stalls_gives_standby_and_comes_back(
    live: RunningRelay, emulator: Emulator
) -> None:
    standby = live.status()["frames"]["standby"]
    emulator.fault("stall")
    seconds = wait_for("standby", lambda: live.status()["frames"]["standby"] > standby, 4)
    assert seconds < 1.0 + 0.5 + 0.3  # stall limit, promise, polling
    emulator.clear()
    live.wait_state("live", within=15)
    before = swapped(live)
    wait_for("swapped frames again", lambda: swapped(live) > before + 20, 5)


@pytest.mark.parametrize("fault", ["end_session", "fail_session"])
def test_a_session_that_the_service_ends_is_followed_by_a_new_one(
    live: RunningRelay, emulator: Emulator, fault: str
) -> None:
    session = live.status()["session_id"]
    emulator.fault(fault)
    wait_for("a new session", lambda: live.status()["session_id"] not in {session, None}, 15)
    live.wait_state("live", within=15)
    assert len(emulator.sessions()) == 1


@pytest.mark.parametrize("kind", ["noise", "green", "garbled"])
def test_spoiled_pictures_do_not_end_the_relay(
    live: RunningRelay, emulator: Emulator, kind: str
) -> None:
    before = swapped(live)
    emulator.fault("corrupt", kind=kind, seconds=1.0)
    wait_for("pictures", lambda: swapped(live) > before + 40, 6)
    assert live.state() == "live"


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("http_status", {"status": 429, "retry_after": 1}),
        ("empty_channel", {}),
        ("no_token", {}),
    ],
)
def test_a_create_that_certainly_failed_is_tried_again_and_leaves_no_session(
    start_relay: StartRelay, emulator: Emulator, fault: str, options: dict[str, int]
) -> None:
    where = {"endpoint": "create"} if fault == "http_status" else {}
    emulator.fault(fault, calls=1, **where, **options)
    relay = start_relay()
    relay.wait_state("live")
    assert emulator.open() == [relay.status()["session_id"]]


@pytest.mark.parametrize(
    ("fault", "options"), [("http_status", {"status": 502}), ("garbage", {}), ("cut", {})]
)
def test_a_create_whose_answer_is_lost_is_not_tried_again_until_a_person_says_so(
    start_relay: StartRelay, emulator: Emulator, fault: str, options: dict[str, int]
) -> None:
    emulator.fault(fault, calls=1, endpoint="create", **options)
    relay = start_relay()
    relay.wait_state("backoff")
    assert "session.maybe_open" in relay.events()
    opened = emulator.open()  # the fault may have let it be opened: nobody can know
    relay.post("/api/resume")
    relay.wait_state("live")
    assert emulator.open() == [*opened, relay.status()["session_id"]]
    assert relay.stop() == 0
    emulator.reset()


def test_a_missing_status_lookup_is_no_hindrance(
    start_relay: StartRelay, emulator: Emulator
) -> None:
    emulator.fault("no_info")
    relay = start_relay()
    relay.wait_state("live")
    assert LogEvent.SESSION_STATUS_UNSUPPORTED in relay.events()


def test_a_new_face_shows_on_the_live_session_within_seconds(
    live: RunningRelay, emulator: Emulator
) -> None:
    session = live.status()["session_id"]
    answer = live.post("/api/face", image=emulator.upload(PORTRAIT2))
    assert answer.status_code == 200, answer.text
    assert live.status()["session_id"] == session


def test_a_face_that_the_service_refuses_leaves_the_old_one_on(
    live: RunningRelay, emulator: Emulator, tmp_path: Path
) -> None:
    refused = live.post("/api/face", image="http://127.0.0.1:9/none.png")
    assert refused.status_code in {422, 502}
    assert live.state() == "live"


def test_all_of_it_never_leaves_the_outputs_without_a_frame(
    live: RunningRelay, emulator: Emulator
) -> None:
    """Promise 3."""
    for fault in ("drop_rtc", "end_session"):
        emulator.fault(fault)
        live.wait_state("degraded", "backoff", "opening", within=8)
        live.wait_state("live", within=15)
    live.post("/api/pause")
    live.post("/api/resume")
    live.wait_state("live", within=15)
    assert live.status()["longest_gap"] < BUSY_GAP
