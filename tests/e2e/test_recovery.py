"""How long each kind of output takes to be seen as lost, and to be back by itself."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_outputs import up
from tests.support.stage import START, RunningRelay, StartRelay, free_port, wait_for

pytestmark = pytest.mark.relay

SEEN_WITHIN = 12.0  # s: StreamOutput's stall limit and a little
BACK_WITHIN = 25.0  # s: the longest wait between two tries, a connection, and a busy machine
DISK = 6_000_000
"""Bytes of the small disk: room for 10 s at the 2000 kbit/s of these relays, twice."""


@contextlib.contextmanager
def ffmpeg_listens(url: str, *before: str) -> Iterator[None]:
    """Receive one push with FFmpeg until the block ends, then kill it."""
    command = ["ffmpeg", "-v", "error", *before, "-i", url, "-f", "null", "-"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


Receiver = Callable[[], contextlib.AbstractContextManager[None]]


def push_to(scheme: str) -> tuple[str, Receiver]:
    """Return a URL to push to and what receives there."""
    port = free_port()
    match scheme:
        case "rtmp":
            url = f"rtmp://127.0.0.1:{port}/live/x"
            return url, lambda: ffmpeg_listens(url, "-listen", "1")
        case "rtsp":
            url = f"rtsp://127.0.0.1:{port}/live"
            return url, lambda: ffmpeg_listens(url, "-rtsp_flags", "listen")
        case "srt":
            url = f"srt://127.0.0.1:{port}"
            return url, lambda: ffmpeg_listens(f"{url}?mode=listener")
        case _:
            url = f"tcp://127.0.0.1:{port}"
            return url, lambda: ffmpeg_listens(f"{url}?listen=1", "-f", "mpegts")


def all_say(relay: RunningRelay, name: str, *, works: bool) -> bool:
    """Whether status, health and metric agree on this output."""
    status = relay.status()
    return (
        (status["outputs"][name] == "ok") is works
        and status["healthy"] is works
        and (relay.get("/healthz").status_code == 200) is works
        and up(relay)[name] == float(works)
    )


def tell(kind: str, seen: float, back: float, reason: str) -> None:
    print(f"| {kind} | {seen:.1f} s | {back:.1f} s | {reason} |")  # noqa: T201 - the table, by -s


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scheme", ["tcp", "rtmp", "rtsp", "srt"])
def test_a_killed_receiver_is_told_everywhere_and_the_push_is_back_with_it(
    start_relay: StartRelay, scheme: str
) -> None:
    url, receives = push_to(scheme)
    with receives():
        relay = start_relay("output.1.kind=stream", f"output.1.url={url}")
        relay.wait_state("live")
        (name,) = [one for one in relay.status()["outputs"] if one.startswith(scheme)]
        wait_for("the push", lambda: all_say(relay, name, works=True), START)
    seen = wait_for("the loss", lambda: all_say(relay, name, works=False), SEEN_WITHIN)
    assert relay.state() == "live", "the recording still shows the call"
    reason = relay.status()["outputs"][name]
    time.sleep(2)  # a receiver that is away for a moment only is no outage
    with receives():
        back = wait_for("the push", lambda: all_say(relay, name, works=True), BACK_WITHIN)
        assert relay.stop() == 0
    tell(f"{scheme} receiver killed", seen, back, reason)


@pytest.mark.timeout(120)
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can mount a small disk")
def test_a_full_disk_is_told_everywhere_and_the_recording_goes_on_when_there_is_room(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        name = f"{disk}/out.mkv"
        relay = start_relay(f"output.0.url={name}")
        relay.wait_state("live")
        wait_for("the recording", lambda: all_say(relay, name, works=True), START)
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 100_000)))
        seen = wait_for("the loss", lambda: all_say(relay, name, works=False), SEEN_WITHIN)
        reason = relay.status()["outputs"][name]
        assert "o space left" in reason
        wait_for("standby, as there is no other", lambda: relay.state() != "live", BACK_WITHIN * 2)
        (disk / "filler").unlink()
        (disk / "out.mkv").unlink()
        back = wait_for("the recording", lambda: up(relay)[name] == 1.0, BACK_WITHIN)
        relay.wait_state("live")
        wait_for("health", lambda: all_say(relay, name, works=True), START)
        assert relay.stop() == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    tell("disk full, then freed", seen, back, reason)


def test_a_removed_folder_is_told_everywhere_and_the_recording_goes_on_when_it_is_made(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    name = f"{folder}/out.mkv"
    relay = start_relay(f"output.0.url={name}")
    relay.wait_state("live")
    wait_for("the recording", lambda: all_say(relay, name, works=True), START)
    shutil.rmtree(folder)
    seen = wait_for("the loss", lambda: all_say(relay, name, works=False), SEEN_WITHIN)
    wait_for("the reason", lambda: "No such file" in relay.status()["outputs"][name], SEEN_WITHIN)
    folder.mkdir()
    back = wait_for("the recording", lambda: up(relay)[name] == 1.0, BACK_WITHIN)
    relay.wait_state("live")
    wait_for("health", lambda: all_say(relay, name, works=True), START)
    assert relay.stop() == 0
    tell("folder removed, then made", seen, back, "No such file or directory")
