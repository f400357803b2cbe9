"""The virtual microphone on real sound servers: heard, listed, private, and back after a fault."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Self

import numpy as np
import pytest

from relayd.clock import MonotonicClock
from relayd.config.settings import MicrophoneSettings
from relayd.errors import MicrophoneUnavailable, OutputError
from relayd.output.base import OutputChange, OutputEvent, SoundOutput
from relayd.output.kept import KeptOutput
from relayd.output.microphone import make_microphone
from relayd.output.pulse import PipeSource, server_of
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, AudibleSound, silence
from tests.support.sound_server import Kind, SoundServer, is_installed

SOURCE = "relayd_microphone"


@pytest.fixture(params=["pulseaudio", "pipewire"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SoundServer]:
    kind: Kind = request.param
    if not is_installed(kind):
        pytest.skip(f"{kind} is not installed")
    server = SoundServer(kind, tmp_path / "run")
    server.start()
    for name in ("XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.setenv(name, server.environment[name])
    yield server
    server.stop()


def wait_for(condition: Callable[[], object], within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


class Feeder:
    """Feeds the number of each block as the value of its samples, in real time."""

    def __init__(self, microphone: SoundOutput) -> None:
        self.kept = KeptOutput(
            microphone, stop=Event(), clock=MonotonicClock(), on_event=self.events_append
        )
        self.events: list[OutputEvent] = []
        self.silent = False
        self._stop = Event()
        self._thread = Thread(target=self._run)

    def events_append(self, event: OutputEvent) -> None:
        self.events.append(event)

    def __enter__(self) -> Self:
        self.kept.use(lambda microphone: microphone.open())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.kept._stop.set()
        self.kept.join()
        self.kept.output.close()

    def _run(self) -> None:
        number, due = 0, time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            number += 1
            samples = silence() if self.silent else np.full(BLOCK, number % 32000 + 1, np.int16)
            sound = AudibleSound(samples, due)
            self.kept.use(partial(_play, sound))
            due += BLOCK_SECONDS


def _play(sound: AudibleSound, microphone: SoundOutput) -> None:
    microphone.play(sound)


@pytest.fixture
def counts() -> list[int | None]:
    return []


@pytest.fixture
def microphone(server: SoundServer, counts: list[int | None]) -> SoundOutput:
    del server  # it must run before
    settings = MicrophoneSettings(kind="microphone")
    return make_microphone(settings, lambda _name, count: counts.append(count))


def test_a_program_hears_each_block_once_and_in_order(
    server: SoundServer, microphone: SoundOutput
) -> None:
    with Feeder(microphone), server.recording(SOURCE) as take:
        take(1.0)
        heard = take(4.0)
    numbers = heard[np.flatnonzero(np.diff(heard, prepend=heard[0]))]
    numbers = numbers[numbers > 0]
    steps = np.diff(numbers)
    steps = steps[steps != 0]  # a server that waited puts silence within a block
    assert len(steps) > 200, "a loaded machine may lose some"
    wrong = np.flatnonzero(steps < 0)
    assert not len(wrong), f"heard twice or in another order: {steps[wrong]} at {wrong}"
    assert np.median(steps) == 1


def test_it_is_listed_by_its_name_and_brings_no_speaker(
    server: SoundServer, microphone: SoundOutput
) -> None:
    before = server.ask("list", "short", "sinks")[1]
    with Feeder(microphone):
        assert "Description: relayd microphone" in server.ask("list", "sources")[1]
        assert server.ask("list", "short", "sinks")[1] == before
    assert SOURCE not in server.ask("list", "short", "sources")[1]


def test_no_other_user_can_listen_or_speak(server: SoundServer, microphone: SoundOutput) -> None:
    with Feeder(microphone):
        folder = Path(server.environment["XDG_RUNTIME_DIR"], "relayd", "microphones")
        (fifo,) = folder.glob("*.pipe")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_ISFIFO(fifo.stat().st_mode)
        assert stat.S_IMODE(fifo.stat().st_mode) == 0o600


def test_who_begins_to_listen_hears_nothing_old(
    server: SoundServer, microphone: SoundOutput
) -> None:
    with Feeder(microphone) as feeder:
        time.sleep(2.0)
        feeder.silent = True
        time.sleep(0.5)
        with server.recording(SOURCE) as take:
            assert not take(1.0).any()


def test_the_programs_that_record_are_counted(
    server: SoundServer, microphone: SoundOutput, counts: list[int | None]
) -> None:
    with Feeder(microphone):
        wait_for(lambda: counts == [0])
        with server.recording(SOURCE) as take:
            take(0.2)
            wait_for(lambda: counts[-1] == 1)
        wait_for(lambda: counts[-1] == 0)


def test_it_is_back_after_the_server_was_restarted(
    server: SoundServer, microphone: SoundOutput
) -> None:
    with Feeder(microphone) as feeder:
        server.stop()
        wait_for(lambda: feeder.kept.lost)
        server.start()
        wait_for(lambda: not feeder.kept.lost)
        with server.recording(SOURCE) as take:
            take(0.5)
            assert take(1.0).any()
    assert [event.change for event in feeder.events][-1] is OutputChange.BACK


def test_one_that_a_killed_relay_left_is_used_again(
    server: SoundServer, microphone: SoundOutput
) -> None:
    microphone.open()
    microphone._pipe.close()  # type: ignore[attr-defined]  # as the kernel does at SIGKILL
    microphone._pipe = None  # type: ignore[attr-defined]  # the same
    os.close(microphone._lock)  # type: ignore[attr-defined]  # the same
    microphone._lock = None  # type: ignore[attr-defined]  # the same
    microphone.close()
    settings = MicrophoneSettings(kind="microphone")
    with Feeder(make_microphone(settings, lambda *_: None)):
        sources = server.ask("list", "short", "sources")[1]
        assert sum(SOURCE in line for line in sources.splitlines()) == 1
        with server.recording(SOURCE) as take:
            take(0.5)
            assert take(1.0).any()


def test_two_relays_never_speak_through_one_microphone(
    server: SoundServer, microphone: SoundOutput
) -> None:
    other = make_microphone(MicrophoneSettings(kind="microphone"), lambda *_: None)
    with Feeder(microphone):
        with pytest.raises(MicrophoneUnavailable, match="another relay") as refusal:
            other.open()
        assert refusal.value.hint
        other.close()
        assert SOURCE in server.ask("list", "short", "sources")[1], "the first one's stays"
    other.open()
    other.close()


def test_one_that_cannot_be_fed_is_removed_and_made_anew(
    server: SoundServer, microphone: SoundOutput
) -> None:
    microphone.open()
    folder = Path(server.environment["XDG_RUNTIME_DIR"], "relayd", "microphones")
    microphone._pipe.close()  # type: ignore[attr-defined]  # as after SIGKILL
    microphone._pipe = None  # type: ignore[attr-defined]  # the same
    os.close(microphone._lock)  # type: ignore[attr-defined]  # the same
    microphone._lock = None  # type: ignore[attr-defined]  # the same
    microphone.close()
    next(folder.glob("*.pipe")).unlink()
    other = make_microphone(MicrophoneSettings(kind="microphone"), lambda *_: None)
    with pytest.raises(MicrophoneUnavailable):
        other.open()
    other.close()
    assert SOURCE not in server.ask("list", "short", "sources")[1]
    other.open()
    other.close()


def test_one_that_was_never_opened_takes_no_sound_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    for device in ("pulse", "alsa:hw:CARD=relayd,DEV=0"):
        settings = MicrophoneSettings(kind="microphone", device=device)
        microphone = make_microphone(settings, lambda *_: None)
        with pytest.raises(OutputError, match="not open"):
            microphone.play(AudibleSound(silence(), 0.0))


@pytest.mark.parametrize(
    ("sources", "recordings"),
    [
        ("", "{}"),
        ("\n7\n\n", "[]"),
        ("7 relayd_microphone", "nonsense"),
        ("7 relayd_microphone", "[7]"),
        ("7 relayd_microphone", "{"),
        ("7 relayd_microphone", "[" * 100_000),
        ("7 relayd_microphone", '[["source"]]'),
    ],
)
def test_nonsense_of_pactl_counts_nobody_or_is_unknown(
    sources: str, recordings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources").write_text(sources)
    (tmp_path / "recordings").write_text(recordings)
    pactl = tmp_path / "pactl"
    pactl.write_text(
        f'#!/bin/sh\ncase "$*" in *source-outputs) cat {tmp_path}/recordings;;'
        f" *) cat {tmp_path}/sources;; esac\n"
    )
    pactl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    source = PipeSource(SOURCE, "relayd microphone", tmp_path / "fifo")
    with suppress(MicrophoneUnavailable):
        assert source.listeners() == 0


def test_without_a_server_it_says_so_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    microphone = make_microphone(MicrophoneSettings(kind="microphone"), lambda *_: None)
    with pytest.raises(MicrophoneUnavailable) as refusal:
        microphone.open()
    assert refusal.value.hint
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(MicrophoneUnavailable, match="XDG_RUNTIME_DIR is not set"):
        microphone.open()


@pytest.mark.parametrize(
    ("name", "latency"),
    [
        ("pulseaudio", 0.0),
        ("PulseAudio (on PipeWire 0.3.65)", 0.038),
        ("PulseAudio (on PipeWire 0.3.80)", 0.174),
        ("PulseAudio (on PipeWire 1.4.2)", 0.174),
    ],
)
def test_the_latency_follows_the_servers_version(name: str, latency: float) -> None:
    assert server_of(f"Server String: x\nServer Name: {name}\n").latency == latency


def play_for(seconds: float, microphone: SoundOutput) -> None:
    for _ in range(round(seconds / BLOCK_SECONDS)):
        microphone.play(AudibleSound(silence(), 0.0))
        time.sleep(BLOCK_SECONDS)


def test_a_lost_server_is_reported_as_an_error_of_the_output(
    server: SoundServer, microphone: SoundOutput
) -> None:
    microphone.open()
    try:
        server.stop()
        with pytest.raises(OutputError, match="the sound server closed it"):
            play_for(5.0, microphone)
    finally:
        microphone.close()
