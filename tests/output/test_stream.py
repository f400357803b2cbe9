import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

import relayd
from relayd.errors import OutputError
from relayd.media.encode import VideoWriter
from relayd.media.frames import Geometry, SwappedFrame, black
from relayd.media.slots import SharedSlot
from relayd.output.base import OutputChange, OutputEvent
from relayd.output.pusher import Order
from relayd.output.recording import Part
from relayd.output.stream import StreamOutput
from relayd.process.environment import python_environment
from relayd.urls.targets import format_of

SIZE = Geometry(160, 120)
FFMPEG_8_1 = (62, 12, 0)  # by its libavformat


def picture(number: int) -> np.ndarray:
    """Return a picture whose brightness encodes its number, 0 to 39."""
    i420 = black(SIZE)
    i420[: SIZE.height] = 20 + number % 40 * 5
    return i420


def time_of(frame: av.VideoFrame) -> Fraction:
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


def numbers(path: Any) -> list[tuple[int, Fraction]]:
    """Read back the number and time of each picture."""
    with av.open(str(path)) as container:
        found = [
            (round((int(frame.to_ndarray()[10, 10]) - 20) / 5), time_of(frame))
            for frame in container.decode(video=0)
        ]
    start = found[0][1]
    return [(number, at - start) for number, at in found]


def write(path: Any, count: Any = 30, **settings: Any) -> None:
    writer = VideoWriter(str(path), 160, 120, fps=20, bitrate_kbit=500, **settings)
    for number in range(count):
        writer.write(picture(number))
    writer.close()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv"])
def test_a_file_holds_each_picture_at_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    write(path)
    found = numbers(path)
    assert [number for number, _ in found] == list(range(30))
    assert all(abs(at - Fraction(n, 20)) <= Fraction(1, 1000) for n, (_, at) in enumerate(found))


def test_the_stream_says_bt601_limited_and_has_a_key_frame_each_2_seconds(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", count=90)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.color_range) == ("h264", "yuv420p", 1)
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (6, 6, 6)
        assert stream.average_rate == 20
    assert [n for n, frame in enumerate(frames) if frame.key_frame] == [0, 40, 80]


def test_a_dropped_picture_leaves_a_gap_and_does_not_speed_up_the_video(tmp_path: Path) -> None:
    writer = VideoWriter(str(tmp_path / "out.mkv"), 160, 120, fps=20, bitrate_kbit=500)
    for number in (0, 1, 5, 6):
        writer.write(picture(number), number)
    writer.close()
    assert [float(at) for _, at in numbers(tmp_path / "out.mkv")] == [0.0, 0.05, 0.25, 0.3]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_file_plays_up_to_2_seconds_before_its_writer_was_killed(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out.{suffix}"
    child = os.fork()
    if child == 0:
        writer = VideoWriter(str(path), 160, 120, fps=20, bitrate_kbit=500)
        for number in range(100):
            writer.write(picture(number))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(numbers(path)) >= 60


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/nonexistent/out.mp4", "No such file"),
        ("out.avi2", "no container is known"),
        ("gopher://host/x", "cannot push to gopher://"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("rtsp://u:secretword@127.0.0.1:1/x", "Connection refused"),
        ("rtmp://127.0.0.1:1/live/secretword", "Connection refused"),
    ],
)
def test_a_target_that_cannot_be_written_is_an_output_error_without_secrets(
    target: str, reason: str
) -> None:
    with pytest.raises(OutputError) as caught:  # noqa: PT012 - either may raise
        writer = VideoWriter(target, 160, 120, fps=20, bitrate_kbit=500)
        writer.write(picture(0))
    assert reason in str(caught.value)
    assert "secretword" not in str(caught.value)


def test_the_scheme_names_the_container_whatever_its_case() -> None:
    assert format_of("RTMPS://h/live/key") == "flv"


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    first = tmp_path / "out.mp4"
    first.write_text("precious")
    for name in ("out-1.mp4", "out-2.mp4"):
        part = Part.create(str(first), 500)
        part.close()
        assert part.path == tmp_path / name
    assert (tmp_path / "out-1.mp4").stat().st_mode & 0o777 == 0o600, "it shows people"
    assert first.read_text() == "precious"
    assert str(Part.create("/dev/null", 500).path) == "/dev/null"


def test_only_the_owner_can_read_a_recording_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for _ in range(2):
            part = Part.create(str(tmp_path / "out.mp4"), 500)
            part.close()
            assert part.path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


class Feed:
    """Shows pictures on an output at 20 fps, as the output clock would, until the block ends."""

    def __init__(self, url: Any, **settings: Any) -> None:
        self.events: list[OutputEvent] = []
        self.longest = 0.0
        self.output = StreamOutput(str(url), SIZE, 20, 500, on_event=self.events.append, **settings)
        self._stop = threading.Event()

    def __enter__(self) -> Any:
        self.output.open()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.05):
            begin = time.monotonic()
            self.output.show(SwappedFrame(picture(number), begin))
            self.longest = max(self.longest, time.monotonic() - begin)
            number += 1

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        begin = time.monotonic()
        self.output.close()
        self.closed_in = time.monotonic() - begin

    def changes(self) -> list[OutputChange]:
        return [event.change for event in self.events]


def children_with(argument: str) -> list[psutil.Process]:
    """Return the running children of this process that have such an argument."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # also what has ended and is not waited for
            if argument in child.cmdline():
                found.append(child)
    return found


def until(condition: Any, limit: Any = 15.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_what_is_shown_is_in_the_file_at_its_time(tmp_path: Path) -> None:
    with Feed(tmp_path / "out.mp4") as feed:
        until(lambda: feed.output.stats().frames >= 20)
    found = numbers(tmp_path / "out.mp4")
    stats = feed.output.stats()
    assert stats.frames == len(found)
    assert feed.changes() == [OutputChange.BACK]
    first = found[0][0]
    assert all(abs(at - Fraction((n - first) % 40, 20)) < Fraction(1, 1000) for n, at in found[:39])


def test_a_missing_folder_is_reported_once_and_the_file_started_when_it_exists(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "disk"
    with Feed(folder / "out.mp4") as feed:
        until(lambda: feed.events)
        assert "No such file" in feed.output.trouble
        folder.mkdir()
        until(lambda: feed.output.stats().frames >= 5)
        assert feed.output.trouble == ""
    assert feed.changes() == [OutputChange.LOST, OutputChange.BACK]
    assert "No such file" in feed.events[0].reason
    assert len(numbers(folder / "out.mp4")) >= 5


def test_an_impossible_file_name_is_reported_and_does_not_count_as_working(
    tmp_path: Path,
) -> None:
    with Feed(str(tmp_path / f"{'x' * 300}.mp4")) as feed:
        until(lambda: feed.changes() == [OutputChange.LOST])
        assert "File name too long" in feed.output.trouble


def test_a_file_name_without_a_known_format_is_reported_once_and_no_file_is_created(
    tmp_path: Path,
) -> None:
    with Feed(tmp_path / "out.nonsense") as feed:
        until(lambda: feed.output.stats().reconnects >= 2)
        assert "no container is known" in feed.output.trouble
    assert feed.changes() == [OutputChange.LOST]
    assert list(tmp_path.iterdir()) == []


def free_port(kind: Any = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def receive(
    url: Any, container_format: Any, options: Any, count: Any = 10
) -> list[tuple[int, int]]:
    """Listen, receive `count` pictures, close the connection."""
    options = options | {"analyzeduration": "200000", "fflags": "nobuffer"}
    with av.open(url, format=container_format, options=options, timeout=(12, 8)) as container:
        found: list[tuple[int, int]] = []
        for frame in container.decode(video=0):
            found.append((frame.width, frame.height))
            if len(found) == count:
                return found
    return found


def peer(scheme: str) -> tuple[str, tuple[str, str, dict[str, str]]]:
    """Return the URL to push to, and how to listen there."""
    if scheme == "rtmp" and av.library_versions["libavformat"] < FFMPEG_8_1:
        pytest.skip("as an RTMP server, the FFmpeg 8.0 in PyAV 16 ends the process")
    port = free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    url = f"{scheme}://127.0.0.1:{port}"
    return {
        "udp": (url, (url, "mpegts", {})),
        "tcp": (url, (f"{url}?listen=1&listen_timeout=12000", "mpegts", {})),
        "rtmp": (f"{url}/live/key", (f"{url}/live/key", "flv", {"listen": "1", "timeout": "12"})),
        "rtsp": (
            f"{url}/cam",
            (f"{url}/cam", "rtsp", {"rtsp_flags": "listen", "listen_timeout": "12"}),
        ),
    }[scheme]


@pytest.mark.parametrize("scheme", ["udp", "tcp", "rtmp", "rtsp"])
def test_a_push_is_received_by_a_real_peer(scheme: str) -> None:
    url, listen = peer(scheme)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive, *listen)
        with Feed(url) as feed:
            assert received.result(20) == [(160, 120)] * 10
    assert feed.changes()[-1] in {OutputChange.BACK, OutputChange.LOST}
    assert feed.longest < 0.5
    assert feed.closed_in < 5


@pytest.mark.parametrize("scheme", ["tcp", "rtmp", "rtsp"])
def test_a_peer_that_dies_is_reported_and_pushed_to_again_when_it_is_back(scheme: str) -> None:
    url, listen = peer(scheme)
    with ThreadPoolExecutor(1) as pool, Feed(url) as feed:
        pool.submit(receive, *listen).result(20)
        until(lambda: feed.changes().count(OutputChange.LOST) >= 1 and not feed.output.stats().up)
        pool.submit(receive, *listen).result(20)
        until(lambda: feed.changes().count(OutputChange.BACK) >= 2)
    assert feed.output.stats().reconnects >= 1


def test_a_peer_that_does_not_answer_is_given_up_and_blocks_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/secretword"
        with Feed(url, stall_limit=1.0) as feed:
            until(lambda: children_with("relayd.output.pusher"))
            arguments = [child.cmdline() for child in children_with("relayd.output.pusher")]
            until(lambda: feed.events)
    assert feed.changes() == [OutputChange.LOST]
    assert "no progress for 1 s" in feed.events[0].reason
    assert feed.longest < 0.5
    assert feed.closed_in < 5
    assert "secretword" not in str(arguments) + str(feed.events)


def test_closing_kills_a_process_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/key"
        with Feed(url, finish_limit=0.3) as feed:
            connection, _ = silent.accept()  # it now waits for our part of the handshake
        connection.close()
    assert 0.3 <= feed.closed_in < 3


def test_a_killed_encoder_is_reported_and_restarted() -> None:
    url, _ = peer("udp")
    with Feed(url) as feed:
        until(lambda: feed.output.stats().up)
        (encoder,) = children_with("relayd.output.pusher")
        encoder.kill()
        until(lambda: feed.changes() == [OutputChange.BACK, OutputChange.LOST, OutputChange.BACK])
    assert "SIGKILL" in feed.events[1].reason


ORPHAN = """
import sys, time
from relayd.media.frames import Geometry, SwappedFrame, black
from relayd.output.pusher import Order
from relayd.output.stream import StreamOutput
output = StreamOutput(sys.argv[1], Geometry(160, 120), 20, 500)
output.open()
while True:
    output.show(SwappedFrame(black(Geometry(160, 120)), 0.0))
    time.sleep(0.05)
    if output.stats().frames > 10:
        print("up", flush=True)
"""


def test_the_encoder_ends_with_a_relayd_that_was_killed(tmp_path: Path) -> None:
    root = Path(relayd.__file__).parent.parent
    with psutil.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path / "out.ts")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as daemon:
        assert daemon.stdout.readline() == b"up\n"
        (encoder,) = daemon.children()
        daemon.kill()
    until(lambda: not encoder.is_running() or encoder.status() == psutil.STATUS_ZOMBIE)
    assert len(numbers(tmp_path / "out.ts")) > 5


def test_noise_on_the_encoders_stdout_is_ignored_and_its_end_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('native noise'); print('[1]'); print('7')"]
    with Feed(tmp_path / "out.mp4", command=command) as feed:
        until(lambda: feed.events)
    assert feed.changes()[0] is OutputChange.LOST
    assert "status 0" in feed.events[0].reason
    assert list(tmp_path.iterdir()) == [], "a file with no picture in it is not kept"


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="SRT goes through the program ffmpeg")
def test_srt_is_received_by_a_real_listener(tmp_path: Path) -> None:
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    out = tmp_path / "received.ts"
    listener = psutil.Popen(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-analyzeduration", "200000",
         "-i", f"{url}?mode=listener",
         "-c", "copy", "-frames:v", "10", "-y", str(out)],
    )  # fmt: skip
    try:
        with Feed(url) as feed:
            assert listener.wait(25) == 0
    finally:
        if listener.is_running():
            listener.kill()
    assert len(numbers(out)) >= 8
    assert feed.longest < 0.5


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="SRT goes through the program ffmpeg")
def test_no_command_line_shows_the_passphrase_and_the_streamid_that_an_srt_peer_gets(
    tmp_path: Path,
) -> None:
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    secrets = "passphrase=sesame+open-1&streamid=%23%21%3A%3Au%3Dsesame"
    out = tmp_path / "received.ts"
    listener = psutil.Popen(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-analyzeduration", "200000",
         "-i", f"{url}?mode=listener&passphrase=sesame+open-1",
         "-c", "copy", "-frames:v", "10", "-y", str(out)],
    )  # fmt: skip
    seen: list[str] = []
    try:
        with Feed(f"{url}?latency=100000&{secrets}"):
            while listener.poll() is None:
                for child in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        seen += [] if child.pid == listener.pid else [" ".join(child.cmdline())]
                time.sleep(0.05)
        assert listener.returncode == 0
    finally:
        if listener.is_running():
            listener.kill()
    assert len(numbers(out)) >= 8
    assert any(f"{url}?latency=100000" in line for line in seen)
    assert not [line for line in seen if "sesame" in line]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="SRT goes through the program ffmpeg")
def test_a_killed_srt_listener_is_reported_and_pushed_to_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    url = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    listen = [
        "ffmpeg",
        "-nostdin",
        "-loglevel",
        "error",
        "-i",
        f"{url}?mode=listener",
        "-f",
        "null",
    ]
    with Feed(url) as feed:
        for times in (1, 2):
            listener = psutil.Popen([*listen, "-"])
            until(lambda: feed.changes().count(OutputChange.BACK) >= times, 30)  # noqa: B023
            assert feed.output.trouble == ""
            listener.kill()
            listener.wait()
            until(lambda: feed.output.trouble, 30)
            assert not feed.output.stats().up


def test_udp_counts_as_working_without_a_receiver() -> None:
    url, _ = peer("udp")
    with Feed(url) as feed:
        until(lambda: feed.output.stats().frames > 30)
    assert feed.changes() == [OutputChange.BACK]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="SRT goes through the program ffmpeg")
def test_a_refusal_by_an_srt_peer_is_reported_without_secrets() -> None:
    url = (
        f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}?connect_timeout=300&passphrase=secretword1"
    )
    with Feed(url) as feed:
        until(lambda: feed.events)
    assert feed.events[0].change is OutputChange.LOST
    assert "secretword1" not in feed.events[0].reason


def test_srt_without_the_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OutputError, match="apt install ffmpeg"):
        VideoWriter("srt://127.0.0.1:1", 160, 120, fps=20, bitrate_kbit=500)


def test_nothing_is_imported_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    with Feed(tmp_path / "out.mp4") as feed:
        until(lambda: feed.events)
    assert feed.changes() == [OutputChange.BACK]


INSPECTING = """
import os, subprocess, sys
from relayd.output import pusher

LIST = '''
import os
for number in os.listdir("/proc/self/fd"):
    try:
        print(number, os.readlink("/proc/self/fd/" + number))
    except OSError:
        pass
'''

class Inspecting(pusher.VideoWriter):
    def __init__(self, *arguments, **settings):
        command = [sys.executable, "-c", LIST]
        seen = subprocess.run(command, close_fds=False, stdout=subprocess.PIPE)
        open(sys.argv[1], "wb").write(seen.stdout)
        print("a library prints", flush=True)
        super().__init__(*arguments, **settings)

pusher.VideoWriter = Inspecting
pusher.main()
"""


def test_what_a_library_starts_or_prints_does_not_reach_the_pipes(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Feed(tmp_path / "out.mkv", command=[sys.executable, "-c", INSPECTING, str(seen)]) as feed:
        until(lambda: feed.output.stats().frames >= 5)
    inherited = {int(line.split()[0]): line for line in seen.read_text().splitlines()}
    assert set(inherited) == {0, 1, 2}
    assert "/dev/null" in inherited[0]


def test_a_process_that_outlives_the_writer_with_its_pipe_blocks_nothing(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"read order; sleep 30 & echo $! >> {pid}; exec 0<&-; exit 3"
    with Feed(tmp_path / "out.mkv", command=["sh", "-c", script], stall_limit=0.5) as feed:
        until(lambda: feed.events)
    for left in pid.read_text().split():
        with contextlib.suppress(ProcessLookupError):  # killed with the writer's group, and reaped
            os.kill(int(left), signal.SIGKILL)
    assert feed.closed_in < 10
    assert "no progress" in feed.events[0].reason


REPORT = '{"frames": 1, "dropped": 0, "connected": true, "error": ""}'
CUT_IN_TWO = f"""
import sys, time
sys.stdout.write({REPORT[:20]!r})
sys.stdout.flush()
time.sleep(0.3)
print({REPORT[20:]!r}, flush=True)
sys.exit(3)
"""
WITH_WRONG_TYPES = f"""
import json, sys
for wrong in (None, [], {{}}, 1e400):
    for key in ("frames", "dropped", "connected", "error"):
        print(json.dumps(json.loads({REPORT!r}) | {{key: wrong}}), flush=True)
print("[" * 50_000, flush=True)
sys.exit(5)
"""
MISBEHAVIOUR = {
    "a report cut in two, then the end": (CUT_IN_TWO, "status 3"),
    "reports with wrong types": (WITH_WRONG_TYPES, "status 5"),
    "a line without an end": (
        "import sys\nwhile True: sys.stdout.write('x' * 65536)",
        "a line of more than 65536 bytes",
    ),
    "noise without an end": (
        "import sys\nwhile True: sys.stdout.write('noise' * 99 + chr(10))",
        "no progress",
    ),
    "stdout closed, but the process goes on": (
        "import os, time; os.close(1); time.sleep(60)",
        "closed its reports and was killed",
    ),
    "no report, and no order read": ("import time; time.sleep(60)", "no progress"),
    "a death by a signal": ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
}


@pytest.mark.parametrize("way", MISBEHAVIOUR)
def test_whatever_the_encoder_process_does_one_end_is_reported_and_a_stop_is_not_delayed(
    tmp_path: Path, way: str
) -> None:
    script, reason = MISBEHAVIOUR[way]
    command = [sys.executable, "-c", script]
    with Feed(tmp_path / "out.mkv", command=command, stall_limit=1.0, finish_limit=0.5) as feed:
        until(lambda: OutputChange.LOST in feed.changes())
    lost = [event for event in feed.events if event.change is OutputChange.LOST]
    assert len(lost) <= feed.output.stats().reconnects + 1
    assert reason in lost[0].reason
    assert feed.closed_in < 5
    assert not children_with(script)


def test_a_parent_that_does_not_read_blocks_no_output(tmp_path: Path) -> None:
    """The pipe of reports is full from the start."""
    slot = SharedSlot.create(SIZE, "test")
    readable, into = os.pipe()
    os.set_blocking(into, False)
    with suppress(BlockingIOError):
        while True:
            os.write(into, b"x" * 4096)
    os.set_blocking(into, True)
    order = Order(os.getpid(), str(tmp_path / "out.mkv"), 160, 120, 20.0, 500, *slot.fds)
    encoder = subprocess.Popen(
        [sys.executable, "-P", "-m", "relayd.output.pusher"],
        stdin=subprocess.PIPE,
        stdout=into,
        pass_fds=slot.fds,
        env=python_environment(),
    )
    try:
        assert encoder.stdin
        encoder.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        encoder.stdin.flush()
        for number in range(40):
            slot.write(picture(number), 0.0)
            time.sleep(0.05)
        encoder.stdin.close()
        assert encoder.wait(20) == 0
    finally:
        encoder.kill()
        encoder.wait()
        slot.close()
        os.close(readable)
        os.close(into)
    assert len(numbers(tmp_path / "out.mkv")) > 5


def test_an_encoder_with_another_parent_does_not_start(tmp_path: Path) -> None:
    slot = SharedSlot.create(SIZE, "test")
    order = Order(1, str(tmp_path / "out.mkv"), 160, 120, 20.0, 500, *slot.fds)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "relayd.output.pusher"],
        input=json.dumps(asdict(order)).encode() + b"\n",
        pass_fds=slot.fds,
        env=python_environment(),
        check=False,
    )
    slot.close()
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.mkv").exists()


def test_a_url_that_is_too_long_for_an_order_is_reported(tmp_path: Path) -> None:
    with Feed("udp://127.0.0.1:9/" + "x" * 40_000) as feed:
        until(lambda: feed.events)
    assert "longer than" in feed.events[0].reason
