"""Whole relays over Agora's real wrapper: what each fault shows, costs, and how it ends."""

import io
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from relayd.emulator.swap import SourceFace, decode_image, likeness
from relayd.relay.sessions import MIN_LIFETIME
from tests.agora.cloud import FRONT, Cloud
from tests.agora.control import Refused
from tests.agora.stage import Course, Rgb, Table, recorded
from tests.agora.wire import Reason
from tests.support.stage import (
    PERSON,
    PORTRAIT,
    Emulator,
    RunningRelay,
    StartRelay,
    longest_gap_allowed,
    relay_config,
    relayd,
    wait_for,
)

STALL = 1.0
"""s, rtc.stall_timeout of these relays."""
LONG_STALL = 3.0
"""s, its default: more than the 2 s after which a decoder gets a key frame unasked."""
BACK = 10.0
"""s in which a relay is to be live again once nothing hinders it; it takes one to three."""
LEAVE = 2.0
"""s that a worker may take to leave before it is killed."""
JOIN = 15.0
"""s after which a join counts as failed at the latest."""
RECOVERY = 15.0
"""s that a link may take to repair itself."""
ENGINE = "3"
"""The swap engine's user."""
MAGENTA = "lavfi:color=c=magenta:size=640x480:rate=30"
EXTRA = 3.0
"""s for the rest: the service's answers, a process that starts."""

pytestmark = pytest.mark.relay


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """All measured rows, printed at the end."""
    table = Table()
    yield table
    table.print()


@pytest.fixture
def live(start_agora_relay: StartRelay) -> RunningRelay:
    relay = start_agora_relay(f"rtc.stall_timeout={STALL}")
    relay.wait_state("live")
    wait_for("it is shown", lambda: relay.status()["frames"]["fresh"], 2)  # at the next tick
    return relay


@pytest.fixture
def course(live: RunningRelay, table: Table) -> Callable[[str], Course]:
    """Begin the course of a fault on a live relay."""
    return lambda fault: Course(live, fault)


@pytest.fixture(scope="module")
def face() -> SourceFace:
    return SourceFace.prepare(decode_image(PORTRAIT.read_bytes()))


def picture_of(relay: RunningRelay) -> Rgb:
    return np.asarray(Image.open(io.BytesIO(relay.picture())).convert("RGB"))


def mean_likeness(pictures: list[Rgb], face: SourceFace) -> float:
    found = [likeness(np.ascontiguousarray(picture[..., ::-1]), face) for picture in pictures]
    alike = [value for value in found if value is not None]
    assert len(alike) >= len(pictures) / 2, found
    return sum(alike) / len(alike)


def some_pictures(relay: RunningRelay, count: int = 4) -> list[Rgb]:
    """Pictures of the output, some tenths of a second apart."""
    pictures = []
    for _ in range(count):
        time.sleep(0.3)
        pictures.append(picture_of(relay))
    return pictures


def shows_magenta(picture: Rgb) -> bool:
    red, green, blue = (picture[..., plane].astype(int) for plane in range(3))
    return bool(((red > 150) & (blue > 150) & (green < 100)).any())


def shows_green(picture: Rgb) -> bool:
    """Whether half of it is what the engine was told to send."""
    red, green, blue = (picture[..., plane].astype(int) for plane in range(3))
    return bool(((red < 60) & (blue < 60) & (green > 90)).mean() > 0.5)


def shows_grey(picture: Rgb) -> bool:
    """Whether half of it is one mid grey."""
    return bool((np.abs(picture.astype(int) - 128).max(axis=2) < 12).mean() > 0.5)


def shared_memory_of(relay: RunningRelay) -> int:
    """Count the blocks of shared memory that a relay has open."""
    links = [entry.readlink() for entry in Path(f"/proc/{relay.process.pid}/fd").iterdir()]
    return sum(str(link).startswith("/memfd:") for link in links)


# All well


def test_a_relay_swaps_the_face_at_20_fps_and_leaves_no_session_and_no_process(
    live: RunningRelay, agora: Cloud, agora_emulator: Emulator, face: SourceFace, tmp_path: Path
) -> None:
    time.sleep(4.0)
    alike = mean_likeness(some_pictures(live, 5), face)
    status = live.status()
    assert status["fps"] == pytest.approx(20, abs=0.5)
    assert status["longest_gap"] <= longest_gap_allowed()
    assert status["frames"]["swapped"] > 80
    (front,) = agora.members(FRONT)
    assert (front.role, front.publishes, front.subscribes) == (1, ["video"], [ENGINE])
    assert [front.encoder[name] for name in ("width", "height", "fps")] == [640, 480, 20]
    assert front.encoder["bitrate"] == front.encoder["min_bitrate"] == 2_000_000
    (worker,) = [psutil.Process(service.pid) for service in agora.services()]
    assert live.stop() == 0
    assert agora_emulator.sessions() == []
    assert agora_emulator.state()["ended"][-1]["end_reason"] == "closed"
    assert not worker.is_running()
    assert [member.state for member in agora.members(FRONT)] == ["left"]
    assert alike > 0.85
    assert len(list(recorded(tmp_path / "out.mkv"))) > 100


def test_the_library_is_called_from_one_thread_and_never_from_its_own(
    live: RunningRelay, agora: Cloud
) -> None:
    time.sleep(1.0)
    assert live.stop() == 0
    calls = [call for call in agora.calls() if not call.name.startswith(("service_", "parameter_"))]
    assert len({call.thread for call in calls}) == 1
    assert not [call.name for call in calls if call.in_callback]


def test_check_names_the_library_that_would_run(agora_emulator: Emulator, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(relay_config(agora_emulator, PERSON, tmp_path))
    asked = ("check", "-c", config, "--set", "rtc.kind=agora")
    done = relayd(*asked, PYTHONPATH=os.environ["PYTHONPATH"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok +rtc: agora-python-server-sdk 2\.4\.10 loads", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ["check", "run"])
def test_without_the_library_a_command_ends_with_69_and_says_how_to_install_it(
    agora_emulator: Emulator, tmp_path: Path, command: str
) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(relay_config(agora_emulator, PERSON, tmp_path))
    done = relayd(command, "-c", config, "--set", "rtc.kind=agora")
    assert done.returncode == 69, done.stdout + done.stderr
    assert "relayd agora-install" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# Privacy


def test_what_the_engine_sends_back_is_recorded(
    start_agora_relay: StartRelay, tmp_path: Path
) -> None:
    """The yardstick: the engine leaves a picture without a face as it is."""
    relay = start_agora_relay(source=MAGENTA)
    relay.wait_state("live")
    time.sleep(0.5)
    assert relay.stop() == 0
    assert any(map(shows_magenta, recorded(tmp_path / "out.mkv")))


@pytest.mark.parametrize("fallback", ["standby", "hold"])
def test_neither_own_pictures_nor_those_of_strangers_are_ever_shown(
    start_agora_relay: StartRelay,
    agora: Cloud,
    agora_emulator: Emulator,
    fallback: str,
    tmp_path: Path,
) -> None:
    agora_emulator.fault("corrupt", kind="green")
    agora.spoil(echo=True)
    relay = start_agora_relay(
        f"privacy.fallback={fallback}", f"rtc.stall_timeout={STALL / 2}", source=MAGENTA
    )
    relay.wait_state("live")
    time.sleep(0.5)
    agora.spoil(stopped=True)  # so that no picture of the engine's takes a stranger's place
    for sender in ("77", "0", FRONT):
        agora.burst(20, sender=sender)
        time.sleep(0.2)
    time.sleep(STALL)
    agora.spoil(echo=True)
    relay.wait_state("live")
    agora_emulator.fault("drop_rtc")
    time.sleep(0.5)
    relay.wait_state("live")
    agora.burst(20)
    agora_emulator.fault("end_session")
    time.sleep(0.5)
    relay.post("/api/pause")
    time.sleep(0.5)
    assert relay.stop() == 0
    pictures = list(recorded(tmp_path / "out.mkv"))
    assert not any(map(shows_magenta, pictures))
    assert not any(map(shows_grey, pictures))
    assert sum(map(shows_green, pictures)) > 20


# Joins that fail


def test_a_token_that_has_ended_is_followed_by_another_session_soon(
    start_agora_relay: StartRelay, agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    before = agora_emulator.created()
    reason = Reason.TOKEN_EXPIRED
    agora.refuse_joins(reason)
    relay = start_agora_relay()
    course = Course(relay, f"join refused, reason {reason.value}")
    course.until_repair("session", BACK)
    course.end()
    course.until_live(BACK)
    course.note(table)
    assert len(agora_emulator.created() - before) == 2
    assert len(agora_emulator.sessions()) == 1
    assert "backoff" in course.states()


def test_an_unexplained_refusal_is_not_tried_again_soon(
    start_agora_relay: StartRelay, agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    words = {
        Reason.INVALID_TOKEN: "the token is refused",
        Reason.REJECTED: "the server refuses this user",
        Reason.TOO_MANY_BROADCASTERS: "the channel has too many broadcasters",
    }
    for reason in words:
        agora.refuse_joins(reason)
    relay = start_agora_relay()
    for reason, said in words.items():
        course = Course(relay, f"join refused, reason {reason.value}")
        course.until_repair("session", BACK)
        course.until_state("backoff", 1)
        assert course.now["reason"] == f"{said} (Agora's reason {reason.value})"
        created = agora_emulator.created()
        time.sleep(1.5)  # the usual wait is over by now
        assert relay.state() == "backoff"
        assert agora_emulator.created() == created
        assert agora_emulator.sessions() == []
        course.note(table)
        relay.post("/api/resume")
    relay.wait_state("live")


def test_a_refusal_that_only_a_person_can_fix_blocks_the_relay(
    start_agora_relay: StartRelay, agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    reasons = [
        Reason.BANNED, Reason.INVALID_APP_ID, Reason.LICENSE, Reason.INCONSISTENT_APP_ID,
    ]  # fmt: skip
    for reason in reasons:
        agora.refuse_joins(reason)
    relay = start_agora_relay()
    for reason in reasons:
        course = Course(relay, f"join refused, reason {reason.value}")
        course.until_repair("session", BACK)
        course.until_state("blocked", 1)
        assert f"(Agora's reason {reason.value})" in course.now["reason"]
        assert agora_emulator.sessions() == []
        course.note(table)
        relay.post("/api/resume")
    relay.wait_state("live")


def test_a_join_that_is_never_answered_is_given_up_and_another_session_opened(
    start_agora_relay: StartRelay, agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    agora.ignore_joins()
    relay = start_agora_relay()
    course = Course(relay, "join never answered")
    course.until_repair("session", JOIN + EXTRA)
    course.end()
    course.until_live(BACK)
    course.note(table)
    assert len(agora_emulator.sessions()) == 1


@pytest.mark.parametrize("fault", ["hang", "fail"])
def test_a_library_that_does_not_start_is_tried_again_in_another_session(
    start_agora_relay: StartRelay,
    agora: Cloud,
    agora_emulator: Emulator,
    table: Table,
    fault: str,
) -> None:
    if fault == "hang":
        agora.preset(hang=["service_initialize"])
    else:
        agora.preset(fail={"service_initialize": -7})
    relay = start_agora_relay()
    course = Course(relay, f"service_initialize: {fault}")
    course.until_repair("session", JOIN + LEAVE + EXTRA)
    agora.preset()
    course.end()
    course.until_live(BACK)
    course.note(table)
    assert len(agora_emulator.sessions()) == 1


# Tokens that end


def test_an_expiring_token_without_a_successor_gives_a_new_session_and_no_standby(
    course: Callable[[str], Course], agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    ends = course("token ends soon, no newer one")
    agora.will_expire(agora.members(FRONT)[-1].token)
    ends.until_state("rotating", MIN_LIFETIME + EXTRA)
    ends.until_repair("session", BACK)
    ends.until_live(2)
    ends.note(table)
    assert ends.shown("standby") == 0
    assert ends.now["session_id"] != ends.before["session_id"]
    wait_for("the old one is closed", lambda: len(agora_emulator.sessions()) == 1, 5)


def test_an_expiring_token_is_renewed_if_the_service_has_a_newer_one(
    start_agora_relay: StartRelay, agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    first = "an-early-token"
    agora_emulator.fault("no_token", calls=1, fields={"front_rtc_token": first})
    relay = start_agora_relay()
    wait_for("the session", agora_emulator.sessions, BACK, every=0.02)
    channel = agora_emulator.sessions()[0]["channel_id"]

    def is_allowed() -> bool:
        with suppress(Refused):  # its channel is opened soon after it
            agora.allow_token(channel, first)
            return True
        return False

    wait_for("the session's channel", is_allowed, BACK, every=0.01)
    relay.wait_state("live")
    course = Course(relay, "token ends soon, a newer one")
    agora.will_expire(first)
    course.until("renewal", lambda: agora.members(FRONT)[-1].renewed, 3)
    time.sleep(0.5)
    course.note(table)
    assert course.states() == ["live"]
    assert course.shown("standby") == 0
    assert course.now["session_id"] == course.before["session_id"]
    assert agora.members(FRONT)[-1].token == agora.members(ENGINE)[-1].token


def test_a_token_that_ended_gives_a_new_session(
    course: Callable[[str], Course], agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    ended = course("token ended")
    agora.did_expire()
    ended.until_repair("session", 3)
    ended.until_live(BACK)
    ended.note(table)
    assert ended.now["session_id"] != ended.before["session_id"]
    assert len(agora_emulator.sessions()) == 1


# Connections that break


def test_an_engine_that_leaves_and_comes_back_costs_no_session_and_no_worker(
    course: Callable[[str], Course], agora: Cloud, table: Table
) -> None:
    gone = course("engine left, back after 1.5 s")
    agora.go_away(ENGINE)
    gone.until_state("degraded", 1)
    assert "swap engine left" in gone.now["reason"]
    gone.until_standby(STALL)
    agora.come_back(ENGINE)
    gone.end()
    gone.until_live(BACK)
    gone.note(table)
    assert gone.now["reconnects"]["link"] == 0
    assert gone.now["session_id"] == gone.before["session_id"]


@pytest.mark.parametrize("seconds", [0.5, LONG_STALL + 0.5])
def test_a_connection_that_recovers_costs_no_session_and_no_worker(
    start_agora_relay: StartRelay, agora: Cloud, table: Table, seconds: float
) -> None:
    relay = start_agora_relay(f"rtc.stall_timeout={LONG_STALL}")
    relay.wait_state("live")
    broken = Course(relay, f"reconnecting, reconnected after {seconds:g} s")
    agora.interrupt()
    broken.until_state("degraded", 1)
    if seconds > LONG_STALL:
        broken.until_standby(LONG_STALL)
    time.sleep(0.5)
    agora.resume()
    broken.end()
    broken.until_live(BACK)
    broken.note(table)
    assert broken.now["reconnects"]["link"] == 0
    assert broken.now["session_id"] == broken.before["session_id"]


def test_a_connection_that_does_not_recover_is_made_again_in_the_same_session(
    course: Callable[[str], Course], agora: Cloud, table: Table
) -> None:
    broken = course("reconnecting, lost, never back")
    agora.interrupt()
    broken.until_standby(STALL)
    agora.lose()
    broken.until_repair("link", RECOVERY + EXTRA)
    broken.end()
    broken.until_live(BACK)
    broken.note(table)
    assert broken.now["session_id"] == broken.before["session_id"]


def test_a_connection_that_ends_is_made_again_in_the_same_session(
    course: Callable[[str], Course], agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    ends: dict[str, Callable[[], None]] = {
        "failed, reason 16": lambda: agora_emulator.fault("drop_rtc"),
        "failed, reason 19": lambda: agora.fail(Reason.SAME_UID),
        "disconnected, reason 5": lambda: agora.disconnect(Reason.LEFT),
    }
    for name, end in ends.items():
        ended = course(name)
        end()
        ended.until_repair("link", 2)
        ended.until_live(BACK)
        ended.note(table)
        assert ended.now["session_id"] == ended.before["session_id"]
        assert f"(Agora's reason {name.split()[-1]})" in ended.log()


def test_a_relay_that_is_banned_while_live_is_blocked(
    course: Callable[[str], Course], agora: Cloud, agora_emulator: Emulator, table: Table
) -> None:
    banned = course("failed, reason 3")
    agora.fail(Reason.BANNED)
    banned.until_state("blocked", 3)
    banned.until_standby(0)
    banned.note(table)
    assert agora_emulator.sessions() == []


# Pictures that are not as they should be


def test_pictures_of_any_shape_are_shown_upright_and_whole(
    course: Callable[[str], Course],
    live: RunningRelay,
    agora: Cloud,
    table: Table,
    face: SourceFace,
) -> None:
    shapes: dict[str, Callable[[], None]] = {
        "padded by 16": lambda: agora.spoil(pad=16),
        "320x240": lambda: agora.spoil(size=(320, 240)),
        "639x479": lambda: agora.spoil(size=(639, 479)),
        "turned by 90": lambda: agora.spoil(rotation=90),
    }
    for shape, spoil in shapes.items():
        shaped = course(f"pictures {shape}")
        spoil()
        alike = mean_likeness(some_pictures(live, 5), face)
        shaped.note(table, f"(likeness {alike:.2f})")
        assert shaped.states() == ["live"]
        assert shaped.shown("standby") == 0
        assert shaped.shown("fresh") > 10
        assert alike > 0.8


def test_a_frozen_picture_is_shown_like_any_other(
    course: Callable[[str], Course], live: RunningRelay, agora: Cloud, table: Table
) -> None:
    frozen = course("pictures frozen")
    agora.spoil(frozen=True)
    time.sleep(0.3)
    before = picture_of(live)
    time.sleep(2 * STALL)
    assert np.abs(picture_of(live).astype(int) - before).mean() < 4
    frozen.note(table)
    assert frozen.states() == ["live"]
    assert frozen.shown("standby") == 0


def test_pictures_that_stop_give_standby_and_another_worker(
    course: Callable[[str], Course], agora: Cloud, table: Table
) -> None:
    faults: dict[str, Callable[[], None]] = {
        "stopped": lambda: agora.spoil(stopped=True),
        "broken": lambda: agora.spoil(broken=True),
    }
    for fault, spoil in faults.items():
        ceased = course(f"pictures {fault}")
        spoil()
        ceased.until_standby(STALL)
        ceased.until_repair("link", STALL + EXTRA)
        agora.repair()
        ceased.end()
        ceased.until_live(BACK)
        ceased.note(table)
        assert ceased.now["session_id"] == ceased.before["session_id"]


# Workers that die or hang


def test_a_worker_that_dies_is_replaced_in_the_same_session(
    course: Callable[[str], Course], live: RunningRelay, agora: Cloud, table: Table
) -> None:
    deaths: dict[str, Callable[[], None]] = {
        "SIGKILL": lambda: os.kill(agora.services()[-1].pid, signal.SIGKILL),
        "SIGABRT": agora.abort,
        "SIGSEGV": agora.segv,
    }
    memory = shared_memory_of(live)
    for name, die in deaths.items():
        worker = agora.services()[-1].pid
        died = course(f"worker died by {name}")
        die()
        died.until_repair("link", 3)
        died.until_live(BACK)
        died.note(table)
        assert died.now["session_id"] == died.before["session_id"]
        assert f"the worker was ended by {name}" in died.log()
        assert not psutil.pid_exists(worker)
        assert shared_memory_of(live) == memory


def test_a_worker_whose_call_never_returns_is_replaced_in_the_same_session(
    course: Callable[[str], Course], agora: Cloud, table: Table
) -> None:
    worker = agora.services()[-1].pid
    stuck = course("video_frame_sender_send hangs")
    agora.hang("video_frame_sender_send")
    stuck.until_standby(STALL + 0.5)  # the engine's last pictures are on their way
    stuck.until_repair("link", STALL + EXTRA)
    stuck.until_live(BACK + LEAVE)
    stuck.note(table)
    assert stuck.now["session_id"] == stuck.before["session_id"]
    assert not psutil.pid_exists(worker)


def test_a_worker_that_hangs_while_it_asks_for_a_key_frame_is_replaced(
    course: Callable[[str], Course], agora: Cloud, table: Table
) -> None:
    worker = agora.services()[-1].pid
    stuck = course("local_user_send_intra_request hangs")
    agora.hang("local_user_send_intra_request")
    agora.interrupt()
    stuck.until_state("degraded", 1)
    agora.resume()
    stuck.until_repair("link", STALL + RECOVERY + EXTRA)
    stuck.until_live(BACK + LEAVE)
    stuck.note(table)
    assert stuck.now["session_id"] == stuck.before["session_id"]
    assert not psutil.pid_exists(worker)


def test_a_release_that_hangs_delays_neither_the_next_worker_nor_the_end(
    course: Callable[[str], Course],
    live: RunningRelay,
    agora: Cloud,
    agora_emulator: Emulator,
    table: Table,
) -> None:
    worker = agora.services()[-1].pid
    stuck = course("failed, then rtc_conn_destroy hangs")
    agora.hang("rtc_conn_destroy")
    agora_emulator.fault("drop_rtc")
    stuck.until_repair("link", 2)
    stuck.until_live(BACK + LEAVE)
    stuck.note(table)
    assert stuck.now["session_id"] == stuck.before["session_id"]
    assert not psutil.pid_exists(worker)

    worker = agora.services()[-1].pid
    ending = course("SIGTERM, rtc_conn_destroy hangs")
    agora.hang("rtc_conn_destroy")
    began = time.monotonic()
    assert live.stop() == 0
    took = time.monotonic() - began
    ending.note_end(table, f"until exit 0, {took:.1f} s later")
    assert took < LEAVE + EXTRA
    assert agora_emulator.sessions() == []
    assert agora_emulator.state()["ended"][-1]["end_reason"] == "closed"
    assert not psutil.pid_exists(worker)
