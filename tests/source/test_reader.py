import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from relayd.clock import MonotonicClock
from relayd.config.settings import SourceSettings
from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.media.frames import I420, Geometry, SourceFrame, black
from relayd.media.look import Look
from relayd.media.skipping import SkipLevel
from relayd.media.slots import LatestSlot
from relayd.media.sound import Hearing
from relayd.source.abandoned import MOST_HUNG
from relayd.source.connection import SourceConnection
from relayd.source.events import SourceDown, SourceEnded, SourceEvent, SourceOpened
from relayd.source.limits import Run, SourceLimits
from relayd.source.opening import SourceOpener
from relayd.source.playing import REFRESH
from relayd.source.reader import STOP_TIMEOUT, UNUSABLE_RETRY, SourceReader
from relayd.urls.safe import MediaUrl

if TYPE_CHECKING:
    from tests.source.conftest import Watch
    from tests.support.clips import Clips


VGA = Geometry(640, 480)


def grey_of(frame: SourceFrame) -> int:
    """Return the number of a picture in a grey ramp, whose grey starts at 40 in steps of 2."""
    return round((int(frame.i420[240, 320]) - (16 + 40 * 219 / 255)) / (2 * 219 / 255))


def test_a_file_reports_its_format_and_delivers_pictures(clips: "Clips", watch: "Watch") -> None:
    watched = watch(clips.quadrants("plain.mp4", 1280, 720))
    _, event = watched.wait_for(SourceOpened, 3)
    assert event == SourceOpened(1280, 720, 30.0, "h264", "file")
    assert watched.frame().i420.shape == (720, 640)


@pytest.mark.parametrize("rate", [24, 25, 60])
def test_a_file_is_played_at_its_own_rate(clips: "Clips", watch: "Watch", rate: int) -> None:
    watched = watch(clips.grey_ramp(f"ramp{rate}.mp4", 60, rate))
    watched.frame()
    frames = watched.arrivals(25)
    pictures = (grey_of(frames[-1]) - grey_of(frames[0])) % 60
    elapsed = frames[-1].captured_at - frames[0].captured_at
    assert elapsed == pytest.approx(pictures / rate, abs=0.15)


def test_a_varying_rate_is_kept(clips: "Clips", watch: "Watch") -> None:
    times = [0.0, 0.2, 0.6, 0.8, 1.2]
    watched = watch(clips.grey_ramp("varying.mkv", 5, 30, times), loop=False)
    frames = watched.arrivals(5, since=0)
    shown = np.array([frame.captured_at for frame in frames]) - frames[0].captured_at
    assert shown == pytest.approx(times, abs=0.1)


def test_a_loop_point_takes_no_longer_than_a_step_and_loses_no_picture(
    clips: "Clips", watch: "Watch"
) -> None:
    watched = watch(clips.grey_ramp("loop.mp4", 5, 10))
    watched.frame()
    frames = watched.arrivals(13)
    gaps = np.diff([frame.captured_at for frame in frames])
    assert max(gaps) < 2 / 10
    numbers = [grey_of(frame) for frame in frames]
    steps = {(later - earlier) % 5 for earlier, later in pairwise(numbers)}
    assert steps == {1}


def test_a_file_that_is_not_looped_ends_once(clips: "Clips", watch: "Watch") -> None:
    watched = watch(clips.grey_ramp("short.mp4", 10, 30), loop=False)
    watched.wait_for(SourceEnded, 3)
    number = watched.slot.latest()[0]
    time.sleep(0.3)
    assert watched.slot.latest()[0] == number == 10
    assert [type(event) for event in watched.events()] == [SourceOpened, SourceEnded]


def test_restart_plays_an_ended_file_again(clips: "Clips", watch: "Watch") -> None:
    watched = watch(clips.grey_ramp("short.mp4", 10, 30), loop=False)
    watched.wait_for(SourceEnded, 3)
    watched.reader.restart()
    watched.wait_for(SourceOpened, 3, after=2)
    assert watched.reader.counters.reconnects == 1


def test_a_still_image_stays_fresh_and_never_stalls(clips: "Clips", watch: "Watch") -> None:
    image = clips.quadrants("still.png", 320, 240, count=1, codec="png", pixel_format="rgb24")
    watched = watch(image, stall_timeout=0.8)
    frames = watched.arrivals(4, within=4)
    assert all(frame.i420 is frames[0].i420 for frame in frames)
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_one_picture_per_second_is_not_a_stall(watch: "Watch") -> None:
    watched = watch("lavfi:testsrc2=size=320x240:rate=1", stall_timeout=0.8)
    watched.arrivals(5, within=5)
    assert [type(event) for event in watched.events()] == [SourceOpened]


def test_a_generator_is_paced(watch: "Watch") -> None:
    watched = watch("lavfi:testsrc2=size=320x240:rate=20")
    watched.frame()
    frames = watched.arrivals(20)
    assert frames[-1].captured_at - frames[0].captured_at == pytest.approx(19 / 20, rel=0.15)


@pytest.mark.parametrize("name", ["missing", "text", "sound"])
def test_an_unusable_source_is_not_retryable(clips: "Clips", watch: "Watch", name: str) -> None:
    path = {
        "missing": clips.folder / "not_there.mp4",
        "text": clips.file("words.mp4", b"words\n" * 999),
        "sound": clips.sound("sound.mp4"),
    }[name]
    watched = watch(path)
    _, event = watched.wait_for(SourceDown, 3)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceUnusable)
    assert not event.error.retryable
    assert event.retry_in == UNUSABLE_RETRY


def test_a_file_that_appears_is_read_on_restart(
    clips: "Clips", watch: "Watch", tmp_path: Path
) -> None:
    path = tmp_path / "later.mp4"
    watched = watch(path)
    watched.wait_for(SourceDown, 3)
    path.write_bytes(clips.quadrants("plain.mp4", 1280, 720).read_bytes())
    watched.reader.restart()
    watched.wait_for(SourceOpened, 3)


def test_retries_start_fast_and_slow_down_to_a_second(watch: "Watch") -> None:
    watched = watch("rtsp://user:hidden@127.0.0.1:9/live")
    with watched.changed:
        assert watched.changed.wait_for(lambda: len(watched.reported) >= 4, 6)
    downs = [event for event in watched.events() if isinstance(event, SourceDown)]
    assert isinstance(downs[0].error, SourceUnreachable)
    assert downs[0].retry_in == 0.25
    assert 0.35 <= downs[1].retry_in <= 0.65
    assert all(down.retry_in <= 1.25 for down in downs)
    assert not any("hidden" in str(down.error) for down in downs)


def test_stop_ends_everything_at_once_in_any_state(clips: "Clips", watch: "Watch") -> None:
    for url in (clips.quadrants("plain.mp4", 1280, 720), "rtsp://127.0.0.1:9/", clips.folder):
        watched = watch(url)
        time.sleep(0.15)
        before = time.monotonic()
        assert watched.reader.stop()
        assert time.monotonic() - before < 0.5
    assert not [t.name for t in threading.enumerate() if t.name.startswith("relayd-source")]


def test_the_slot_is_cleared_when_the_source_is_lost(clips: "Clips", watch: "Watch") -> None:
    path = clips.file("vanishes.ts", clips.quadrants("plain.ts", 320, 240).read_bytes())
    watched = watch(path)
    watched.frame()
    path.unlink()
    watched.reader.restart()
    watched.wait_for(SourceDown, 3)
    assert watched.slot.latest()[1] is None


def test_a_late_recording_catches_up_by_dropping_pictures(clips: "Clips", watch: "Watch") -> None:
    watched = watch(clips.grey_ramp("ramp.mp4", 40, 30))
    watched.frame()
    accept = watched.reader._accept
    slow_until = time.monotonic() + 0.6

    def slowly(connection: SourceConnection, i420: I420) -> bool:
        if time.monotonic() < slow_until:
            time.sleep(0.2)
        return accept(connection, i420)

    connection = watched.reader._current
    assert connection is not None
    connection._publish = slowly
    time.sleep(0.9)
    gaps = np.diff([frame.captured_at for frame in watched.arrivals(20)])
    assert np.mean(gaps) == pytest.approx(1 / 30, rel=0.15)
    assert connection.late > 0


class HungInput:
    """Simulates FFmpeg when it hangs: one picture, then a pause, then one more."""

    width, height, rate, codec, corrupt = 640, 480, 30.0, "hung", 0
    pts, duration, is_key, waited = None, None, True, 0.0
    packets, key_interval, burst = 1, 0.0, 0.0

    sound = None

    def __init__(self) -> None:
        self.released = threading.Event()
        self.closed = threading.Event()

    def skip(self, level: SkipLevel) -> None: ...

    def pictures(self, on_skipped: Callable[[], None]) -> Iterator["HungInput"]:
        yield self
        self.released.wait(10)
        yield self

    def i420(self) -> I420:
        return black(Geometry(640, 480))

    def look(self) -> Look:
        return Look(frozenset({"rtsp"}), self.codec)

    def decode_for(self, *, live: bool) -> None:
        assert live

    def hear(self, hearing: Hearing) -> None: ...

    def close(self) -> None:
        self.closed.set()


def test_a_hang_in_ffmpeg_is_a_loss_at_the_limit_and_its_late_picture_is_ignored(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[HungInput] = []

    def open_hung(*_: object, **__: object) -> HungInput:
        inputs.append(HungInput())
        return inputs[-1]

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", open_hung)
    watched = watch("rtsp://camera/live", stall_timeout=0.3)
    opened_at, _ = watched.wait_for(SourceOpened, 2)
    lost_at, event = watched.wait_for(SourceDown, 2)
    assert lost_at - opened_at == pytest.approx(0.3, abs=0.15)
    assert isinstance(event, SourceDown)
    assert "no picture for 0.3 s" in str(event.error)
    assert watched.reader.counters.stalls == 1
    number = watched.slot.latest()[0]
    inputs[0].released.set()
    assert inputs[0].closed.wait(2)
    assert watched.slot.latest() == (number, None)
    watched.wait_for(SourceDown, 3, after=2)
    for hung in inputs:
        hung.released.set()


def test_no_more_than_two_hung_connections_pile_up(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[HungInput] = []

    def open_hung(*_: object, **__: object) -> HungInput:
        inputs.append(HungInput())
        return inputs[-1]

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", open_hung)
    watched = watch("rtsp://camera/live", stall_timeout=0.2)
    time.sleep(2.0)
    assert len(inputs) == 2
    inputs[0].released.set()
    deadline = time.monotonic() + 3
    while len(inputs) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(inputs) == 3
    watched.reader._requests.stop()
    for hung in inputs:
        hung.released.set()


class SilentCamera:
    """A port that accepts connections and sends nothing."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self._port = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"rtsp://127.0.0.1:{self._port.getsockname()[1]}/cam"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self._port.accept()[0])

    def close(self) -> None:
        self._port.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in (self._port, *self.connections):
            one.close()


@pytest.fixture
def silent_camera() -> Iterator[SilentCamera]:
    camera = SilentCamera()
    yield camera
    camera.close()


def reading() -> int:
    return sum(thread.name == "relayd-source-read" for thread in threading.enumerate())


def restart(reader: SourceReader) -> None:
    reader.restart()


def pause_and_resume(reader: SourceReader) -> None:
    reader.pause()
    time.sleep(0.02)
    reader.resume()


@pytest.mark.parametrize("ask", [restart, pause_and_resume])
def test_however_many_requests_a_silent_camera_gets_few_connections_and_threads(
    watch: "Watch", silent_camera: SilentCamera, ask: Callable[[SourceReader], None]
) -> None:
    watched = watch(silent_camera.url)
    most = 0
    for _ in range(60):
        ask(watched.reader)
        time.sleep(0.05)
        most = max(most, reading())
    assert 1 <= most <= MOST_HUNG + 1
    assert 1 <= len(silent_camera.connections) <= 10
    before = time.monotonic()
    watched.reader.stop()
    assert time.monotonic() - before < STOP_TIMEOUT + 1.0


def test_a_restart_while_it_is_being_opened_waits_for_that_opening(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, released = [], threading.Event()

    def open_slowly(*_: object, **__: object) -> HungInput:
        opened.append(HungInput())
        released.wait(10)
        return opened[-1]

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", open_slowly)
    monkeypatch.setattr("relayd.source.reader.FRESH_CONNECTION", 30.0)
    watched = watch("rtsp://camera/live")
    for _ in range(5):
        watched.reader.restart()
        time.sleep(0.02)
    released.set()
    watched.wait_for(SourceOpened, 2)
    assert len(opened) == 1
    watched.reader.restart()  # it delivers pictures now: this one counts
    watched.wait_for(SourceOpened, 3, after=1)
    assert len(opened) == 2
    for one in opened:
        one.released.set()


def test_a_source_that_hangs_on_every_connection_is_reported_as_down(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[HungInput] = []

    def open_hung(*_: object, **__: object) -> HungInput:
        inputs.append(HungInput())
        return inputs[-1]

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", open_hung)
    watched = watch("rtsp://camera/live")
    for after in range(MOST_HUNG):
        watched.wait_for(SourceOpened, 3, after=after)
        watched.reader.restart()
    _, event = watched.wait_for(SourceDown, 3, after=MOST_HUNG)
    assert "2 earlier connections still hang" in str(event.error)
    assert watched.slot.latest()[1] is None
    inputs[0].released.set()
    watched.wait_for(SourceOpened, 3, after=MOST_HUNG + 1)
    for one in inputs:
        one.released.set()


def test_a_device_is_closed_before_a_restart_opens_it_again(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[HungInput] = []
    were_closed = []

    def open_alone(*_: object, **__: object) -> HungInput:
        were_closed.append([one.closed.is_set() for one in inputs])
        inputs.append(HungInput())
        return inputs[-1]

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", open_alone)
    monkeypatch.setattr("relayd.source.abandoned.RELEASE_WAIT", 10.0)
    watched = watch("rtsp://camera/live")
    watched.wait_for(SourceOpened, 3)
    threading.Timer(0.05, inputs[0].released.set).start()
    watched.reader.restart()
    watched.wait_for(SourceOpened, 3, after=1)
    assert were_closed == [[], [True]]
    inputs[1].released.set()


def test_a_bug_in_the_reader_is_a_loss_and_not_the_end(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.source.opening.plan_input", lambda *_: 1 / 0)
    watched = watch("whatever")
    _, event = watched.wait_for(SourceDown, 3)
    assert isinstance(event, SourceDown)
    assert isinstance(event.error, SourceLost)
    monkeypatch.undo()
    watched.wait_for(SourceDown, 3, after=1)


def test_a_paused_source_is_closed_and_opened_again_by_resume(
    clips: "Clips", watch: "Watch"
) -> None:
    clip = clips.grey_ramp("paused.mp4", 60, 30)

    def is_held() -> bool:
        return any(fd.readlink() == Path(clip) for fd in Path("/proc/self/fd").iterdir()
                   if fd.is_symlink())  # fmt: skip

    watched = watch(clip)
    watched.wait_for(SourceOpened, 3)
    watched.frame()
    assert is_held()
    watched.reader.pause()
    deadline = time.monotonic() + 1.0
    while (is_held() or watched.slot.latest()[1] is not None) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_held()
    assert watched.slot.latest()[1] is None
    number = watched.slot.latest()[0]
    watched.reader.restart()  # a restart does not open a paused source
    time.sleep(0.3)
    assert watched.slot.latest()[0] == number
    watched.reader.resume()
    watched.wait_for(SourceOpened, 3, after=1)
    watched.frame()
    assert watched.reader.counters.reconnects == 0


def test_a_source_that_is_paused_before_the_start_is_opened_only_by_resume(
    clips: "Clips", tmp_path: Path
) -> None:
    clip = MediaUrl(str(clips.grey_ramp("later.mp4", 60, 30)))
    slot: LatestSlot[SourceFrame] = LatestSlot()
    events: list[SourceEvent] = []
    reader = SourceReader(SourceSettings(url=clip), Geometry(640, 480), "crop", slot, events.append)
    reader.pause()
    reader.start()
    time.sleep(0.3)
    assert not events
    began = time.monotonic()
    reader.resume()
    assert slot.wait_newer(0, 3.0)[1] is not None
    assert time.monotonic() - began < 1.0
    reader.pause()
    assert reader.stop()


def test_a_slow_source_that_is_opened_again_shows_nothing_old_meanwhile(
    watch: "Watch", monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[HungInput] = []
    may_open = threading.Event()

    def open_once(*_: object, **__: object) -> HungInput:
        if inputs:
            may_open.wait(10)
            raise SourceUnreachable("it is not there")
        inputs.append(HungInput())
        return inputs[-1]

    monkeypatch.setattr("relayd.source.opening.VideoInput.open", open_once)
    watched = watch("rtsp://camera/live", stall_timeout=5.0)
    watched.reader._limits.learn(Run(2, 6.0, 6.0, 0.0))
    watched.arrivals(3, since=0)  # one picture, kept fresh
    watched.reader.restart()
    time.sleep(0.1)
    number = watched.slot.latest()[0]
    time.sleep(2 * REFRESH)
    assert watched.slot.latest()[0] == number
    watched.reader._requests.stop()
    may_open.set()
    for hung in inputs:
        hung.released.set()


class HungRelease:
    """A capture device whose driver keeps the call that ends its streaming."""

    def __init__(self) -> None:
        self.calls = 0
        self.released = threading.Event()

    def release(self) -> None:
        self.calls += 1
        self.released.wait(10)

    def explained(self, error: SourceError) -> SourceError:
        return error


def test_a_hung_device_is_asked_to_end_once_at_a_time_and_not_after_the_end(
    tmp_path: Path,
) -> None:
    settings = SourceSettings(url=MediaUrl(str(tmp_path / "missing.mp4")))
    limits = SourceLimits(settings)
    device, opener = HungRelease(), SourceOpener(settings, VGA, "crop", limits, fps=20.0)

    def connection() -> SourceConnection:
        return SourceConnection(
            settings,
            opener,
            limits=limits,
            clock=MonotonicClock(),
            wake=threading.Event(),
            publish=lambda *_: True,
        )

    ended = connection()
    ended.start()
    assert ended.join(5)
    opener.device = device  # type: ignore[assignment]  # a simulation
    ended.abandon()
    assert device.calls == 0
    hung = connection()
    for _ in range(5):
        hung.abandon()
        time.sleep(0.02)
    assert device.calls == 1
    device.released.set()
