"""A sound server that hangs holds up nothing."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from relayd.clock import MonotonicClock
from relayd.config.settings import MicrophoneSettings, SoundSettings
from relayd.output.microphone import make_microphone
from relayd.output.pulse import ANSWER_WITHIN, REMOVED_WITHIN
from relayd.relay.sound_path import SoundPath
from tests.support.sound_server import SoundServer, is_installed

BUSY = 2.0
"""s that a busy machine may take besides."""


def signal_server(server: SoundServer, number: signal.Signals) -> None:
    assert server._process is not None
    for process in psutil.Process(server._process.pid).children(recursive=True):
        if process.name() == "pulseaudio":
            process.send_signal(number)


@pytest.mark.skipif(not is_installed("pulseaudio"), reason="needs a sound server")
def test_two_microphones_of_a_server_that_hangs_are_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SoundServer("pulseaudio", tmp_path / "run")
    server.start()
    for name in ("XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.setenv(name, server.environment[name])
    path = SoundPath(
        SoundSettings(),
        [
            make_microphone(MicrophoneSettings(kind="microphone", name=name), lambda *_: None)
            for name in ("one", "two")
        ],
        [],
        send=lambda _sound: None,
        clock=MonotonicClock(),
        on_event=lambda _event: None,
    )
    try:
        path.start()
        deadline = time.monotonic() + 10
        while path.pending():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        signal_server(server, signal.SIGSTOP)
        began = time.monotonic()
        path.stop()
        assert time.monotonic() - began < ANSWER_WITHIN + REMOVED_WITHIN + BUSY
    finally:
        signal_server(server, signal.SIGCONT)
        server.stop()
