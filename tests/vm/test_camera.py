"""The camera in a real kernel, with each version of v4l2loopback."""

import signal
import zlib
from pathlib import Path

import pytest

from relayd.logs import LogEvent
from relayd.relay.status import RelayState
from tests.vm.guest import Guest, Note
from tests.vm.relays import (
    CONFIG,
    NOWHERE,
    PYTHON,
    SIZE,
    Nursery,
    Reader,
    config,
    standby_picture,
    watch,
    write_known_clip,
    wrong_pictures,
)

pytestmark = pytest.mark.vm

CLIP = "/run/relayd/clip.y4m"
PICTURES = 30
TORN = 2
"""Pictures of PICTURES that may be torn: v4l2loopback overwrites what a reader still reads."""
RAW = '[privacy]\nfallback = "raw"'
PYAV = f"""
import av
with av.open("/dev/video0", format="v4l2") as camera, open("/dev/shm/pyav.raw", "wb") as out:
    for _, frame in zip(range({PICTURES}), camera.decode(video=0)):
        out.write(frame.to_ndarray().tobytes())
"""
PROGRAMS = {
    "v4l2-ctl": f"v4l2-ctl --stream-mmap --stream-count={PICTURES}"
    " --stream-to=/dev/shm/v4l2-ctl.raw",
    "ffmpeg": "ffmpeg -v error -y -f v4l2 -i /dev/video0 -fps_mode passthrough"
    f" -frames:v {PICTURES} -f rawvideo /dev/shm/ffmpeg.raw",
    "pyav": f"{PYTHON} -c '{PYAV}'",
}


@pytest.fixture(scope="session")
def known_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = tmp_path_factory.mktemp("vm") / "clip.y4m"
    write_known_clip(clip)
    return clip


def captured(guest: Guest, program: str) -> bytes:
    """Let a program read pictures from the camera; returns them."""
    guest.run(f"timeout 100 {PROGRAMS[program]} >/dev/null; cp /dev/shm/{program}.raw /run/vm/")
    return (guest.folder / f"{program}.raw").read_bytes()


@pytest.mark.parametrize("guest", ["0.12", "0.15"], indirect=True)
def test_every_program_reads_the_relays_pictures_whole_and_is_told_20_fps(
    guest: Guest, nursery: Nursery, known_clip: Path, note: Note
) -> None:
    relay = nursery.run(config(source=CLIP, more=RAW))
    relay.wait_for('"now": "standby", "reason": "[^"]*there is no file')
    state = relay.events(LogEvent.RELAY_STATE)[-1]
    standby = standby_picture(RelayState.STANDBY, state["reason"])
    reader = Reader(guest)
    while set(reader.chapter()["kinds"]) != {str(zlib.crc32(standby))}:
        pass  # until it is drawn, and nothing else is shown
    reader.stop()
    raw = captured(guest, "v4l2-ctl")
    pictures = [raw[at : at + SIZE.nbytes] for at in range(0, len(raw), SIZE.nbytes)]
    assert sum(picture != standby for picture in pictures) <= TORN

    (guest.folder / "clip.y4m").write_bytes(known_clip.read_bytes())
    guest.run(f"mv /run/vm/clip.y4m {CLIP}")
    relay.ask("/api/source/retry", "-sf --json '{}'")
    relay.wait_for('"event": "source.opened"')
    for program in PROGRAMS:
        wrong, numbers = wrong_pictures(captured(guest, program))
        note(f"{guest.loopback}: {program}", f"{len(numbers)} pictures, {wrong} torn")
        assert len(numbers) == PICTURES
        assert wrong <= TORN
        assert len(set(numbers)) > 10  # it moves

    told = guest.run(
        "v4l2-ctl --get-parm; ffprobe -v error -f v4l2 -show_entries"
        " stream=r_frame_rate,pix_fmt,width,height -of csv=p=0 /dev/video0"
    )
    assert "Frames per second: 20.000" in told
    assert f"{SIZE.width},{SIZE.height},yuv420p,20/1" in told
    reader = Reader(guest)
    reader.chapter()
    seen = watch(reader, 100)
    reader.stop()
    note(
        f"{guest.loopback}: kept",
        f"{seen.fps:.2f} fps over {seen.count} pictures, longest wait {seen.longest * 1000:.0f} ms",
    )
    assert not seen.errors
    assert seen.fps == pytest.approx(20, rel=0.05)
    assert relay.stop() == 0
    guest.run(f"rm {CLIP}")


def test_a_relay_that_is_killed_finds_its_camera_again_ten_times_over(
    guest: Guest, nursery: Nursery, note: Note
) -> None:
    relay = nursery.run(config(source=NOWHERE))
    assert "Frames per second: 20.000" in guest.run("v4l2-ctl --get-parm")
    reader = Reader(guest)
    waits = []
    for _ in range(10):
        watch(reader, 3)
        assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
        relay = nursery.start("run", "-c", CONFIG)
        seen = watch(reader, 3)
        assert seen.count >= 3
        assert not seen.errors
        waits.append(seen.longest)
    reader.stop()
    note(
        f"{guest.loopback}: SIGKILL and restart, a reader's wait",
        f"{min(waits):.2f} to {max(waits):.2f} s, 10 of 10 went on by themselves",
    )
    assert relay.stop(signal.SIGKILL) == -signal.SIGKILL
    relay = nursery.run(config(source=NOWHERE))  # and with nobody watching
    assert relay.stop() == 0
    assert "0x05200002" in guest.run(
        "v4l2-ctl --info"
    )  # free for the next one: output, and no capture
