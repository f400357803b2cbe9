"""Promise 2: every session that the service confirmed is closed."""

import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.support.stage import (
    Emulator,
    RunningRelay,
    longest_gap_allowed,
    relayd,
    wait_for,
    workers_of,
)

pytestmark = pytest.mark.relay


def test_a_session_that_a_killed_relay_left_is_closed_by_the_next_start(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    first = start_relay()
    first.wait_state("live")
    lost = emulator.sessions()[0]["_id"]
    first.stop(signal.SIGKILL)
    assert emulator.open() == [lost]

    second = start_relay()
    wait_for(
        "the first relay's session is closed",
        lambda: lost not in emulator.open(),
        5,
    )
    second.wait_state("live")
    assert second.stop() == 0
    assert emulator.sessions() == []
    assert lost in [session["_id"] for session in emulator.state()["ended"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_session_whose_create_is_answered_slowly_is_closed_before_a_signal_ends_the_relay(
    start_relay: Callable[..., RunningRelay], emulator: Emulator, number: int
) -> None:
    emulator.fault("slow", endpoint="create", delay=3.0)
    relay = start_relay()
    relay.wait_state("opening")
    wait_for("the create is at the service", emulator.sessions, 5)
    assert relay.stop(number) == 0
    assert emulator.sessions() == []
    assert [session["end_reason"] for session in emulator.state()["ended"]][-1] == "closed"


@pytest.mark.parametrize("state", ["queued", "joining", "waiting", "live"])
def test_sigterm_in_any_state_closes_the_session(
    start_relay: Callable[..., RunningRelay], emulator: Emulator, state: str
) -> None:
    if state == "queued":
        emulator.fault("queue", queue_seconds=30.0)
    elif state == "joining":
        emulator.fault("slow", endpoint="whip", delay=20.0)
    elif state == "waiting":
        emulator.fault("stall")
    relay = start_relay()
    relay.wait_state(state)
    assert relay.stop() == 0
    assert emulator.sessions() == []


def test_a_close_that_the_service_does_not_confirm_stays_on_the_journal(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    relay = start_relay()
    relay.wait_state("live")
    emulator.fault("http_status", endpoint="close", status=500)
    assert relay.stop() == 0
    assert len(emulator.sessions()) == 1
    emulator.clear()
    again = start_relay()
    again.wait_state("live")
    wait_for("only the new session is open", lambda: len(emulator.sessions()) == 1, 5)
    assert again.stop() == 0
    assert emulator.sessions() == []


def test_no_session_is_opened_while_the_source_gives_no_picture(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    before = emulator.created()
    relay = start_relay("source.url=/nowhere.mp4")
    wait_for("the relay says why", lambda: "nowhere" in relay.status()["reason"], 10)
    assert relay.state() == "standby"
    assert emulator.created() == before


def test_a_refusal_is_told_and_not_tried_again_at_once(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    emulator.fault("refuse", endpoint="create", code=1104)
    relay = start_relay()
    relay.wait_state("blocked")
    assert "credit" in relay.status()["reason"].lower() or "quota" in relay.status()["reason"]
    emulator.clear()
    relay.post("/api/resume")
    relay.wait_state("live")


def test_pausing_closes_the_session_and_resuming_opens_a_new_one(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    relay = start_relay()
    relay.wait_state("live")
    relay.post("/api/pause")
    wait_for("the session is closed", lambda: not emulator.sessions(), 5)
    assert relay.status()["reason"] == "paused"
    relay.post("/api/resume")
    relay.wait_state("live")


def test_a_pause_shows_at_once_even_while_the_service_takes_its_time_to_close(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    relay = start_relay()
    relay.wait_state("live")
    emulator.fault("slow", endpoint="close", delay=5.0)  # it closes at once, and answers then
    relay.post("/api/pause")
    wait_for("the pause is told", lambda: relay.status()["reason"] == "paused", 3)
    assert relay.status()["sessions_open"] == 1, "the close is not confirmed yet"
    wait_for("the close is confirmed", lambda: relay.status()["sessions_open"] == 0, 10)


def test_a_resume_while_an_unwanted_session_is_still_being_undone_opens_a_new_one(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    emulator.fault("slow", endpoint="create", delay=3.0)
    relay = start_relay()
    relay.wait_state("opening")
    wait_for("the create is at the service", emulator.sessions, 5)
    undone = emulator.sessions()[0]["_id"]
    relay.post("/api/pause")
    time.sleep(0.5)  # the pause is seen, the create is not answered yet
    relay.post("/api/resume")
    emulator.clear()
    relay.wait_state("live")
    assert emulator.open() == [relay.status()["session_id"]]
    assert relay.status()["session_id"] != undone


def test_rotation_takes_a_new_session_before_it_closes_the_old_one_and_shows_no_standby(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    relay = start_relay("akool.session_max=3")
    relay.wait_state("live")
    before = relay.status()
    wait_for("a new session", lambda: relay.status()["session_id"] != before["session_id"], 15)
    wait_for("the old one is closed", lambda: len(emulator.sessions()) == 1, 5)
    after = relay.status()
    assert after["frames"]["standby"] == before["frames"]["standby"]
    assert after["longest_gap"] < longest_gap_allowed()


def test_a_create_whose_answer_is_lost_is_not_repeated_and_told_everywhere(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    emulator.fault("garbage", endpoint="create")
    relay = start_relay()
    relay.wait_state("backoff")
    assert "may be open" in relay.status()["reason"]
    time.sleep(6.0)  # at the usual waits, three more would have been opened by now
    assert len(emulator.sessions()) == 1
    assert relay.status()["sessions_doubtful"] == 1
    metrics = relay.get("/metrics").text
    assert "relayd_sessions_doubtful_total 1.0" in metrics.splitlines()
    listed = relayd("sessions", "list", "-c", relay.config)
    assert "may be open" in listed.stdout
    emulator.clear()
    relay.post("/api/resume")  # a person looked at the account
    relay.wait_state("live")
    assert relay.stop() == 0
    assert len(emulator.sessions()) == 1  # the one that nobody knows of
    emulator.reset()


def test_doubts_outlive_the_relay_that_had_them(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    emulator.fault("garbage", endpoint="create")
    relay = start_relay()
    relay.wait_state("backoff")
    assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
    emulator.reset()
    before = emulator.created()
    again = start_relay()
    again.wait_state("backoff")
    assert emulator.created() == before


def test_a_successor_is_used_when_the_old_link_dies_and_no_third_session_is_opened(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    before = emulator.created()
    relay = start_relay("akool.session_max=6", "rtc.stall_timeout=1.0")
    relay.wait_state("live")
    first = relay.status()["session_id"]
    emulator.fault("queue", queue_seconds=4.0)  # of the successor, so that the old link can die
    wait_for("a successor", lambda: len(emulator.sessions()) == 2, 15)
    emulator.fault("slow", endpoint="whip", delay=1.0)
    min(workers_of(relay), key=psutil.Process.create_time).kill()
    wait_for("the successor is shown", lambda: relay.status()["session_id"] != first, 15)
    relay.wait_state("live", "rotating")
    assert len(emulator.created() - before) == 2
    assert relay.stop() == 0


def test_a_session_is_closed_in_time_though_its_worker_hangs(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    relay = start_relay()
    relay.wait_state("live")
    (worker,) = workers_of(relay)
    worker.suspend()
    relay.process.send_signal(signal.SIGTERM)
    wait_for("the session is closed", lambda: not emulator.sessions(), 3)
    assert relay.stop() == 0
    assert not worker.is_running()


def test_the_days_limit_ends_the_session_and_says_so(
    start_relay: Callable[..., RunningRelay], emulator: Emulator
) -> None:
    before = emulator.created()
    relay = start_relay("akool.daily_limit=0.1")
    relay.wait_state("live")
    relay.wait_state("blocked", within=15)
    assert "limit" in relay.status()["reason"]
    wait_for("the session is closed", lambda: not emulator.sessions(), 5)
    assert relay.stop() == 0
    again = start_relay("akool.daily_limit=0.1")
    again.wait_state("blocked")
    assert len(emulator.created() - before) == 1
