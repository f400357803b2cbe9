"""A recording goes on in a new part: after a full disk, a removed folder, a file moved away."""

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.error
import pytest

from relayd.errors import OutputError
from relayd.media.frames import Geometry, SwappedFrame, black
from relayd.output.base import OutputChange, OutputEvent
from relayd.output.recording import Part
from relayd.output.stream import StreamOutput

SIZE = Geometry(160, 120)
KBIT = 400
ROOM = 10 * KBIT * 1000 // 8  # bytes that a part needs


class Recorder:
    """Shows pictures that compress badly on a file at 20 fps, until the block ends."""

    def __init__(self, file: Path) -> None:
        self.events: list[OutputEvent] = []
        self.output = StreamOutput(str(file), SIZE, 20, KBIT, on_event=self.events.append)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.output.open()
        self._thread.start()
        return self

    def _run(self) -> None:
        picture = black(SIZE)
        while not self._stop.wait(0.05):
            picture = picture.copy()
            picture[:120] = memoryview(os.urandom(160 * 120)).cast("B", (120, 160))
            self.output.show(SwappedFrame(picture, time.monotonic()))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.output.close()

    def changes(self) -> list[OutputChange]:
        return [event.change for event in self.events]

    def count(self, change: OutputChange) -> int:
        return self.changes().count(change)


def until(condition: Callable[[], object], limit: float = 30.0) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit, "waited too long"
        time.sleep(0.02)
    return time.monotonic() - start


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        count = 0
        for packet in container.demux(video=0):
            try:
                count += len(packet.decode())
            except av.error.InvalidDataError:  # the last one, cut short
                continue
        return count


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one part and a little."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={2 * ROOM}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "relayd-test", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_recording_whose_disk_was_full_is_playable_and_goes_on_in_a_new_part(
    small_disk: Path, suffix: str
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(ROOM * 9 // 10))
    with Recorder(small_disk / f"out.{suffix}") as recorder:
        until(lambda: recorder.count(OutputChange.BACK) == 1)
        filler.write_bytes(
            bytes(2 * ROOM - (small_disk / f"out.{suffix}").stat().st_size - 150_000)
        )
        until(lambda: recorder.count(OutputChange.LOST) >= 1)
        assert "o space left" in recorder.output.trouble
        until(lambda: "less than 0.5 MB are free" in recorder.output.trouble)
        assert "free some space" in recorder.output.trouble
        filler.unlink()
        until(lambda: recorder.count(OutputChange.BACK) == 2)
        parts = [small_disk / f"out.{suffix}", small_disk / f"out-1.{suffix}"]
        assert recorder.output.files() == tuple(map(str, parts))
        assert recorder.events[-1].file == str(parts[1])
        seen = recorder.output.stats().frames
        until(lambda: recorder.output.stats().frames > seen + 10)
    assert [frames_in(part) > 5 for part in parts] == [True, True]
    assert sorted(small_disk.iterdir()) == sorted(parts), "nothing else is left"


def test_no_part_is_started_without_room_for_it(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(2 * ROOM - ROOM // 2))
    with pytest.raises(OutputError, match=r"out\.mp4: no space left: .* \(free some space there\)"):
        Part.create(str(small_disk / "out.mp4"), KBIT)
    assert not (small_disk / "out.mp4").exists()


def test_no_part_is_started_if_a_limit_or_quota_leaves_no_room(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"out\.mkv: File too large \(raise ulimit -f"):
            Part.create(str(tmp_path / "out.mkv"), KBIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir()), "or the folder would fill up with parts"


def test_a_recording_whose_folder_was_removed_goes_on_when_it_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    with Recorder(folder / "out.mkv") as recorder:
        until(lambda: recorder.count(OutputChange.BACK) == 1)
        shutil.rmtree(folder)
        until(lambda: "No such file" in recorder.output.trouble)
        assert "create its folder" in recorder.output.trouble
        folder.mkdir()
        until(lambda: recorder.count(OutputChange.BACK) == 2)
        seen = recorder.output.stats().frames
        until(lambda: recorder.output.stats().frames > seen + 10)
    assert frames_in(folder / "out.mkv") > 5


def test_a_recording_that_was_moved_away_is_finished_there_and_goes_on_in_a_new_file(
    tmp_path: Path,
) -> None:
    with Recorder(tmp_path / "out.mp4") as recorder:
        until(lambda: recorder.output.stats().frames > 10)
        (tmp_path / "out.mp4").rename(tmp_path / "kept.mp4")
        until(lambda: recorder.count(OutputChange.BACK) == 2)
        assert "removed or renamed" in recorder.events[1].reason
    assert frames_in(tmp_path / "kept.mp4") > 10
    assert frames_in(tmp_path / "out.mp4") > 0
    with av.open(str(tmp_path / "kept.mp4")) as container:
        assert container.duration, "it has an end like any other"
        assert Fraction(container.duration, 1_000_000) > 0


def test_the_actual_name_of_a_recording_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out.mkv").write_text("precious")
    with Recorder(tmp_path / "out.mkv") as recorder:
        until(lambda: recorder.events)
        assert recorder.output.files() == (str(tmp_path / "out-1.mkv"),)
    assert recorder.events[0].file == str(tmp_path / "out-1.mkv")
    assert (tmp_path / "out.mkv").read_text() == "precious"


def test_only_our_own_file_without_a_picture_is_removed(tmp_path: Path) -> None:
    part = Part.create(str(tmp_path / "out.mkv"), KBIT)
    part.close(is_empty=True)
    assert not part.path.exists()
    part = Part.create(str(tmp_path / "out.mkv"), KBIT)
    part.path.unlink()
    part.path.write_text("of somebody else")
    part.close(is_empty=True)
    assert part.path.read_text() == "of somebody else"


@pytest.mark.parametrize("wanted", ["/dev/null/out.mp4", "a\0b.mp4", "x" * 300 + ".mp4"])
def test_a_file_that_cannot_be_made_is_a_named_error(wanted: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^.{10,}: "):
        Part.create(str(tmp_path / wanted) if not wanted.startswith("/") else wanted, KBIT)


def test_a_file_that_is_named_like_a_protocol_of_ffmpeg_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(Path("pipe:2.mkv")) as recorder:
        until(lambda: recorder.count(OutputChange.BACK) == 1)
        until(lambda: recorder.output.stats().frames > 10)
    assert frames_in(tmp_path / "pipe:2.mkv") > 5


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which root alone can")
@pytest.mark.parametrize("as_link", [False, True])
def test_a_fifo_that_another_user_put_into_a_shared_folder_is_refused(
    tmp_path: Path, *, as_link: bool
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    fifo, wanted = tmp_path / "theirs.ts" if as_link else shared / "out.ts", shared / "out.ts"
    os.mkfifo(fifo)
    Part.create(str(fifo), 1000).close()
    if as_link:
        wanted.symlink_to(fifo)
    os.chown(wanted, 65534, 65534, follow_symlinks=False)
    shared.chmod(0o1777)
    with pytest.raises(OutputError, match="belongs to another user"):
        Part.create(str(wanted), 1000)
    shared.chmod(0o755)
    Part.create(str(wanted), 1000).close()
