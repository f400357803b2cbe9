"""How a link ends: on order, by a hang, by a crash, with its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from relayd.media.frames import SourceFrame
from relayd.rtc.link import LinkEventKind, LinkTarget
from tests.agora.cloud import Cloud
from tests.agora.inverter import Inverter
from tests.agora.side import (
    TOKEN,
    Side,
    member,
    names_of,
    picture,
    stop_and_collect_calls,
    wait_for,
)
from tests.agora.wire import Reason


def test_leaving_unregisters_disconnects_and_frees_in_order(side: Side, agora: Cloud) -> None:
    side.live()
    assert side.worker.leave(3.0)
    stop_and_collect_calls(agora, side)
    names = names_of(agora, side)
    order = [
        "local_user_unpublish_video",
        "local_user_unregister_video_frame_observer",
        "rtc_conn_disconnect",
        "rtc_conn_destroy",
    ]
    assert sorted(order, key=names.index) == order
    assert "service_release" not in names
    assert member(agora).state == "left"


@pytest.mark.parametrize(
    "call", ["rtc_conn_destroy", "rtc_conn_disconnect", "local_user_unregister_observer"]
)
def test_an_sdk_that_hangs_while_leaving_is_killed_at_the_deadline(
    side: Side, agora: Cloud, call: str
) -> None:
    side.live()
    agora.hang(call)
    began = time.monotonic()
    side.worker.stop(1.5)
    assert time.monotonic() - began < 2.5
    assert not side.worker.alive


@pytest.mark.parametrize("call", ["video_frame_sender_send", "local_user_send_intra_request"])
def test_an_sdk_that_hangs_never_blocks_publishing(side: Side, agora: Cloud, call: str) -> None:
    side.live()
    agora.hang(call)
    began = time.monotonic()
    for _ in range(20):
        side.worker.publish(SourceFrame(picture(), time.monotonic()))
    assert time.monotonic() - began < 1.0
    side.worker.stop(1.5)
    assert not side.worker.alive


@pytest.mark.parametrize("way", ["abort", "segv"])
def test_an_sdk_that_crashes_its_process_is_reported_with_the_signal(
    side: Side, agora: Cloud, way: str
) -> None:
    side.live()
    getattr(agora, way)()
    died = side.wait_for_event(LinkEventKind.DIED, within=3.0)
    assert {"abort": "SIGABRT", "segv": "SIGSEGV"}[way] in str(died.error)


def test_a_worker_joins_again_with_the_service_it_has(side: Side, agora: Cloud) -> None:
    for _ in range(2):
        side.events.clear()
        side.live()
        assert side.worker.leave(3.0)
    assert names_of(agora, side).count("service_create") == 1
    assert [each.encoder["bitrate"] for each in agora.members("1")[-2:]] == [2_000_000] * 2


def test_a_worker_serves_one_project_and_refuses_others(side: Side, agora: Cloud) -> None:
    side.live()
    assert side.worker.leave(3.0)
    side.events.clear()
    side.worker.join(replace(side.target, app_id="another-app"))
    assert "another Agora project" in str(side.wait_for_event(LinkEventKind.LOST).error)


PARENT = str(Path(__file__).parents[1] / "rtc" / "parent.py")


def test_a_killed_parent_ends_its_worker_and_the_channel_is_left(
    engine: Inverter, agora: Cloud, target: LinkTarget
) -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, PARENT, json.dumps(target.to_json())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((root, os.environ["PYTHONPATH"]))},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        while parent.stdout.readline().strip() != "first_picture":
            assert parent.poll() is None
        parent.kill()
        gone = {"zombie", "dead"}
        wait_for("the end", lambda: not child.is_running() or child.status() in gone, 4.0)
    assert member(agora).state == "left"


def test_a_sigterm_to_the_worker_means_leave(side: Side, agora: Cloud) -> None:
    side.live()
    os.kill(side.worker.pid or 0, signal.SIGTERM)
    side.wait_for_event(LinkEventKind.LEFT)
    assert "status 0" in str(side.wait_for_event(LinkEventKind.DIED).error)
    assert member(agora).state == "left"


def test_the_token_is_in_no_command_line_environment_or_log(
    agora: Cloud, start: Callable[..., Side], capfd: pytest.CaptureFixture[str]
) -> None:
    agora.refuse_joins(Reason.INVALID_TOKEN)
    side = start()
    side.worker.join(side.target)
    side.wait_for_event(LinkEventKind.REFUSED)
    seen = Path(f"/proc/{side.worker.pid}/cmdline").read_bytes()
    seen += Path(f"/proc/{side.worker.pid}/environ").read_bytes()
    side.worker.stop(2.0)
    captured = capfd.readouterr()
    assert TOKEN.encode() not in seen
    assert TOKEN not in captured.err
    assert captured.out == ""


def test_output_of_the_library_on_stdout_goes_to_stderr(
    side: Side, capfd: pytest.CaptureFixture[str]
) -> None:
    side.live()
    link = Path(f"/proc/{side.worker.pid}/fd/1").readlink()
    assert link == Path(f"/proc/{side.worker.pid}/fd/2").readlink()
    assert capfd.readouterr().out == ""
