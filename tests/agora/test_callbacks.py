"""Callbacks on the SDK's threads: late ones, and such as raise."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.agora.cloud import ROOT, Cloud
from tests.agora.side import APP, TOKEN

# A callback that the library has begun waits for the interpreter's lock, which busy threads hold,
# while the wrapper frees the callback's closure.
LEAVE_IN_A_BURST = """
import faulthandler, gc, sys, threading, time
from pathlib import Path
from relayd.media.frames import Geometry
from relayd.rtc.agora import sdk
from relayd.rtc.agora.events import Connected

faulthandler.enable()
app, name, token, folder, rounds, keeps = sys.argv[1:]
sys.setswitchinterval(0.02)
service = sdk.Service.of(app, Path(folder), text_ids=False)
for _ in range(int(rounds)):
    connected, done = threading.Event(), threading.Event()

    def hear(event):
        if isinstance(event, Connected):
            connected.set()

    def compute():
        while not done.is_set():
            sum(range(2000))

    publication = sdk.Publication(Geometry(320, 240), 20, 2000)
    channel = sdk.Channel(
        service, publication, "3", hear, lambda frame: None, on_block=lambda block: None
    )
    channel.connect(token, name, "1")
    assert connected.wait(5)
    print("burst", flush=True)
    sys.stdin.readline()
    busy = [threading.Thread(target=compute) for _ in range(2)]
    for thread in busy:
        thread.start()
    time.sleep(0.05)
    if keeps != "keeps":
        sdk._kept.clear()
    channel.mute()
    channel.disconnect()
    channel.release()
    del channel
    gc.collect()
    time.sleep(0.1)
    done.set()
    for thread in busy:
        thread.join()
print("survived", flush=True)
import os; os._exit(0)
"""

RAISE = """
import ctypes
from agora.rtc._ctypes_handle._ctypes_data import VideoFrameInner
from relayd import logs
from relayd.rtc.agora.observers import FrameObserver
from relayd.rtc.agora.wrapper import _FramesOfOneUser

def break_down(frame):
    raise ValueError("a fault of ours")

logs.configure("info", json=True)
inner = _FramesOfOneUser(FrameObserver("3", break_down), None)
for _ in range(3):
    inner.on_frame(None, b"channel", b"3", ctypes.byref(VideoFrameInner()))
print("goes on")
"""

CLOSED = """
import ctypes
from agora.rtc._ctypes_handle._ctypes_data import VideoFrameInner
from agora.rtc._ctypes_handle._ctypes_data import AudioFrameInner
from relayd.rtc.agora.events import Disconnected
from relayd.rtc.agora.observers import (
    ConnectionObserver, FrameObserver, SoundObserver, UserObserver)
from relayd.rtc.agora.wrapper import _FramesOfOneUser, _SoundOfOneUser

events = []
frames, connection = FrameObserver("3", events.append), ConnectionObserver(events.append)
sound, user = SoundObserver("3", events.append), UserObserver(events.append)
inner, ears = _FramesOfOneUser(frames, None), _SoundOfOneUser(sound, None, 0, None)
for closed in (False, True):
    frames.is_closed = connection.is_closed = sound.is_closed = user.is_closed = closed
    inner.on_frame(None, b"channel", b"3", ctypes.byref(VideoFrameInner()))
    block = AudioFrameInner()
    answers = [
        ears.on_playback_audio_frame_before_mixing(None, b"channel", uid, ctypes.byref(block))
        for uid in (b"3", b"0", None)
    ]
    assert answers == [1, 1, 1], answers
    assert ears.on_get_audio_frame_position(None) == 8
    user.on_user_audio_track_subscribed(None, "3", None)
    connection.on_user_joined(None, "3")
    connection.on_disconnected(None, None, 5)
    print(*(type(one).__name__ for one in events))
    events.clear()
"""


def run(script: str, site: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that sees relayd and the wrapper."""
    return subprocess.run(
        [sys.executable, "-c", "import relayd.rtc.agora.wrapper\n" + script],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{site}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def leave_in_a_burst(
    burst: Callable[[], None], channel: str, folder: Path, rounds: int, keeps: str
) -> int:
    """Leave a channel so many times while callbacks pour in; returns the process's exit status."""
    arguments = [APP, channel, TOKEN, str(folder), str(rounds), keeps]
    with subprocess.Popen(
        [sys.executable, "-c", LEAVE_IN_A_BURST, *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            if line == "burst\n":
                burst()
                process.stdin.write("\n")
                process.stdin.flush()
    return process.returncode


@pytest.fixture(params=["pictures", "sound"])
def burst(agora: Cloud, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Let callbacks of one kind pour in."""
    send = agora.burst if request.param == "pictures" else agora.burst_sound
    return partial(send, 200, sender="3")


def test_a_late_callback_finds_its_objects(
    burst: Callable[[], None], channel: str, tmp_path: Path
) -> None:
    assert leave_in_a_burst(burst, channel, tmp_path, 6, "keeps") == 0


def test_without_the_kept_references_it_would_crash(
    burst: Callable[[], None], channel: str, tmp_path: Path
) -> None:
    assert leave_in_a_burst(burst, channel, tmp_path, 60, "drops") < 0


def test_an_exception_in_a_callback_is_only_logged(agora_site: Path) -> None:
    done = run(RAISE, agora_site)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert done.stderr.count('"event": "sdk.callback_failed"') == 3
    assert "a fault of ours" in done.stderr
    assert "Traceback" not in done.stderr


def test_late_callbacks_of_a_left_link_report_only_the_disconnect(
    agora_site: Path,
) -> None:
    done = run(CLOSED, agora_site)
    assert done.stdout.splitlines() == [
        "ReceivedFrame ReceivedBlock SoundOffered UserJoined Disconnected",
        "Disconnected",
    ]
