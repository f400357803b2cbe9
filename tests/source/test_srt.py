"""SRT sources, against the system's ffmpeg as the peer."""

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from relayd.errors import SourceLost, SourceUnreachable, SourceUnusable
from relayd.source.events import SourceDown, SourceOpened

if TYPE_CHECKING:
    from tests.source.conftest import SrtCamera, Watch

PASSPHRASE = "topsecretpassphrase"
ARGUMENT_LIMIT = 128 * 1024
"""Longest argument of a program in Linux, in bytes, including its end."""


def programs(port: int) -> list[psutil.Process]:
    """Return the programs that use this port for SRT."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(f"srt://127.0.0.1:{port}" in word for word in process.info["cmdline"] or [])
    ]


def test_srt_starts_soon_and_evenly(srt_camera: "SrtCamera", watch: "Watch") -> None:
    srt_camera.start()
    began = time.monotonic()
    watched = watch(srt_camera.url())
    _, event = watched.wait_for(SourceOpened, 5)
    assert time.monotonic() - began < 1.5
    assert isinstance(event, SourceOpened)
    assert (event.width, event.height, event.codec) == (320, 240, "h264")
    frames = watched.arrivals(60)[20:]  # from 6.1 on, ffmpeg's -re sends the first 0.5 s at once
    gaps = np.diff([frame.captured_at for frame in frames])
    assert 0.026 < np.mean(gaps) < 0.040


def test_srt_killed_is_lost_by_the_stall_limit_and_back_soon(
    srt_camera: "SrtCamera", watch: "Watch"
) -> None:
    srt_camera.start()
    watched = watch(srt_camera.url(), stall_timeout=1.0)
    watched.arrivals(5)
    srt_camera.kill()
    last_at = watched.last_picture_until(SourceDown)
    at, event = watched.wait_for(SourceDown, 4)
    assert at - last_at < 1.5  # sooner if the kernel reports the port as closed
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceLost)
    assert watched.slot.latest()[1] is None
    time.sleep(1.0)
    srt_camera.start()
    answers = time.monotonic()
    watched.wait_for(SourceOpened, 3, after=2)
    assert time.monotonic() - answers < 1.5
    assert watched.reader.counters.reconnects == 1


def test_srt_closed_by_the_peer_is_lost_at_once(srt_camera: "SrtCamera", watch: "Watch") -> None:
    srt_camera.start()
    watched = watch(srt_camera.url(), stall_timeout=10.0)
    watched.arrivals(5)
    srt_camera.hang_up()
    _, event = watched.wait_for(SourceDown, 2)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceLost)


def test_srt_frozen_is_lost_at_the_stall_limit(srt_camera: "SrtCamera", watch: "Watch") -> None:
    srt_camera.start()
    watched = watch(srt_camera.url(), stall_timeout=1.0)
    watched.arrivals(5)
    srt_camera.freeze()
    last_at = watched.last_picture_until(SourceDown)
    at, _ = watched.wait_for(SourceDown, 4)
    assert 0.9 < at - last_at < 1.5


@pytest.mark.parametrize("srt_camera", [PASSPHRASE], indirect=True)
def test_srt_passphrase_is_used_and_never_reported(srt_camera: "SrtCamera", watch: "Watch") -> None:
    srt_camera.start()
    refused = watch(f"{srt_camera.url()}?passphrase=wrongsecret")
    _, event = refused.wait_for(SourceDown, 4)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnreachable)
    assert "Incorrect passphrase" in str(event.error)
    watched = watch(srt_camera.url(), options={"passphrase": PASSPHRASE})
    watched.frame()
    assert "secret" not in str([*refused.events(), *watched.events()])


def test_srt_without_an_answer_is_reported_with_the_programs_message(
    srt_camera: "SrtCamera", watch: "Watch"
) -> None:
    watched = watch(f"{srt_camera.url()}?passphrase={PASSPHRASE}", stall_timeout=0.5)
    _, event = watched.wait_for(SourceDown, 4)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnreachable)
    assert "timed out" in str(event.error)
    assert PASSPHRASE not in str(event.error)
    watched.wait_for(SourceDown, 4, after=1)


def test_srt_waits_for_a_caller_as_listener(srt_camera: "SrtCamera", watch: "Watch") -> None:
    watched = watch(f"{srt_camera.url()}?mode=listener")
    time.sleep(0.5)
    srt_camera.call(srt_camera.url())
    watched.frame()


def test_srt_waiting_for_a_caller_does_not_delay_the_stop(
    srt_camera: "SrtCamera", watch: "Watch"
) -> None:
    watched = watch(f"{srt_camera.url()}?mode=listener")
    deadline = time.monotonic() + 3
    while not programs(srt_camera.port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    began = time.monotonic()
    assert watched.reader.stop()
    assert time.monotonic() - began < 0.5
    assert not programs(srt_camera.port)


def test_the_srt_program_ends_when_its_reader_is_killed(srt_camera: "SrtCamera") -> None:
    srt_camera.start()
    code = (
        "import sys, threading; from relayd.media.srt import SrtReader\n"
        "reader = SrtReader(sys.argv[1], 'srt', open_timeout=5, read_timeout=5,"
        " cancelled=threading.Event())\n"
        "while reader.read(4096): print('.', end='', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, srt_camera.url()], stdout=subprocess.PIPE
    ) as relay:
        assert relay.stdout is not None
        assert relay.stdout.read(1) == b"."
        (program,) = [child for child in programs(srt_camera.port) if child.ppid() == relay.pid]
        relay.kill()
    deadline = time.monotonic() + 2
    while program in programs(srt_camera.port):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_srt_without_the_program_says_what_to_install(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    watched = watch("srt://127.0.0.1:1")
    _, event = watched.wait_for(SourceDown, 2)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnusable)
    assert event.error.hint == "sudo apt install ffmpeg"


def test_an_srt_url_that_is_too_long_for_an_argument_is_refused(watch: "Watch") -> None:
    watched = watch("srt://127.0.0.1:1?streamid=" + "a" * ARGUMENT_LIMIT)
    _, event = watched.wait_for(SourceDown, 2)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnusable)
