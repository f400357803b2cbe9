"""The sound of a relay, from what was captured to what outputs and the service get."""

import time
from collections.abc import Sequence
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest
import structlog

from relayd.config.settings import SoundSettings
from relayd.errors import OutputError, Unavailable
from relayd.output.base import OutputChange, OutputEvent
from relayd.relay import sound_path
from relayd.relay.sound_path import LATER, ON_THE_WAY, SoundPath
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, AudibleSound, OwnSound, ReturnedSound
from relayd.sound.clock import HELD
from relayd.sound.gate import Silence
from relayd.sound.returned import DEPTH
from tests.support.clock import FakeClock

LIVE: frozenset[Silence] = frozenset()


class Microphone:
    """Keeps what it is given; a double of a sound server."""

    name = "microphone"

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.heard: list[AudibleSound] = []
        self.broken = False

    def open(self) -> None:
        """Nothing to open."""

    def play(self, sound: AudibleSound) -> None:
        if self.broken:
            raise OutputError("the server is gone")
        self.heard.append(sound)

    def close(self) -> None:
        """Nothing to close."""


class Rig:
    """A path on the test's clock, and someone who says the number of each block."""

    def __init__(self, latency: float = 0.0, **settings: Any) -> None:
        self.clock = FakeClock()
        self.microphone = Microphone(latency)
        self.recorded: list[AudibleSound] = []
        self.sent: list[OwnSound] = []
        self.events: list[OutputEvent] = []
        self.path = SoundPath(
            SoundSettings(**settings),
            [self.microphone],
            [self.recorded.append],
            send=self.sent.append,
            clock=self.clock,
            on_event=self.events.append,
        )
        self.began = self.clock.time
        self.number, self.sign = 0, 1

    def tick(self, count: int, *, speak: bool = True, delay: float | None = None) -> None:
        for _ in range(count):
            self.number += 1
            if speak:
                samples = np.full(BLOCK, self.number * self.sign, np.int16)
                self.path.captured.put(OwnSound(samples, self.clock.time))
            self.clock.time += BLOCK_SECONDS
            if delay is not None and self.number % 5 == 0:
                self.path.note_delay(delay)
            self.path._play(self.clock.time)

    def number_at(self, at: float) -> int:
        """Return the number that was being said at `at`."""
        return int((at - self.began) / BLOCK_SECONDS) + 1


def test_the_voice_is_as_late_as_the_picture() -> None:
    rig = Rig()
    rig.path.steer(LIVE, voice_alone=False)
    rig.tick(300, delay=0.45)
    last = rig.microphone.heard[-1]
    said = rig.number_at(last.at - 0.45 - LATER)
    assert abs(int(last.samples[0]) - said) <= 1
    status = rig.path.status({})
    assert abs(status.delay - 0.45 - LATER) < 0.011
    assert status.target == 0.45 + LATER


def test_a_microphone_that_is_heard_late_gets_its_sound_earlier_and_recordings_do_not() -> None:
    rig = Rig(latency=0.174)
    rig.path.steer(LIVE, voice_alone=False)
    rig.tick(300, delay=0.45)
    heard = rig.microphone.heard[-1]
    assert abs(heard.at - (rig.clock.time + 0.174 + HELD)) < 1e-9
    assert abs(int(heard.samples[0]) - rig.number_at(heard.at - 0.45 - LATER)) <= 1
    assert rig.recorded[-1] is heard


def test_without_a_picture_the_voice_is_as_early_as_it_can_be() -> None:
    rig = Rig()
    rig.path.steer(LIVE, voice_alone=False)
    rig.tick(300, delay=0.45)
    rig.path.steer(LIVE, voice_alone=True)
    rig.tick(400)
    assert rig.path.status({}).delay < 0.05


def test_before_the_relay_is_live_everything_is_silent() -> None:
    rig = Rig()
    rig.tick(100, delay=0.2)
    assert not any(sound.samples.any() for sound in (*rig.microphone.heard, *rig.recorded))
    assert rig.path.status({}).silent_for == ("not_live",)


def test_what_is_said_while_muted_is_never_heard_and_never_sent() -> None:
    rig = Rig(publish=True)
    rig.path.steer(LIVE, voice_alone=False)
    rig.tick(200, delay=0.3)
    rig.path.mute()
    assert rig.path.status({}).muted
    rig.sign = -1
    rig.tick(100, delay=0.3)
    rig.path.unmute()
    rig.tick(round(ON_THE_WAY / BLOCK_SECONDS), delay=0.3)  # a slow microphone brings it later
    rig.sign = 1
    opened_at = len(rig.recorded)
    rig.tick(100, delay=0.3)
    assert any(sound.samples.any() for sound in rig.recorded[opened_at:])
    assert not any((sound.samples < 0).any() for sound in rig.recorded)
    assert not any((sound.samples < 0).any() for sound in rig.sent)


def test_the_voice_is_sent_to_the_service_only_where_that_is_wanted() -> None:
    private = Rig()
    private.path.steer(LIVE, voice_alone=False)
    private.tick(100, delay=0.2)
    assert private.sent == []
    public = Rig(publish=True)
    public.path.steer(LIVE, voice_alone=False)
    public.tick(100, delay=0.2)
    assert [int(sound.samples[0]) for sound in public.sent] == list(range(1, 101))


def test_a_voice_without_a_picture_is_not_told_to_be_early() -> None:
    rig = Rig(latency=0.174)
    rig.path.steer(LIVE, voice_alone=False)
    rig.tick(200, delay=0.6)
    rig.path.steer(LIVE, voice_alone=True)
    rig.tick(1500, speak=True)
    status = rig.path.status({})
    assert abs(status.delay - status.target) < 0.03
    assert status.target < 0.2


def test_returned_sound_is_played_in_place_of_the_own_voice() -> None:
    rig = Rig(play="returned")
    rig.path.steer(LIVE, voice_alone=False)
    for _ in range(50):
        rig.path.put_returned(ReturnedSound(np.full(BLOCK, -7, np.int16), rig.clock.time))
        rig.tick(1, delay=0.2)
    values = {int(sample) for sound in rig.recorded[10:] for sample in sound.samples}
    assert values == {-7}
    assert rig.path.status({}).target == 0.0, "when it was captured is not known here"


def test_a_microphone_that_breaks_stops_neither_the_sound_nor_the_recording() -> None:
    rig = Rig()
    rig.path.steer(LIVE, voice_alone=False)
    rig.microphone.broken = True
    rig.path._stop.set()  # it is not to be opened again here
    rig.tick(50, delay=0.2)
    assert len(rig.recorded) == 50
    assert [event.change for event in rig.events] == [OutputChange.LOST]
    rig.path.stop()


def test_an_offset_is_added_to_what_is_measured() -> None:
    rig = Rig(offset=0.1)
    rig.path.steer(LIVE, voice_alone=False)
    rig.tick(300, delay=0.3)
    assert abs(rig.path.status({}).delay - 0.4 - LATER) < 0.011
    rig.path.set_offset(0.0)
    rig.tick(600, delay=0.3)
    assert abs(rig.path.status({}).delay - 0.3 - LATER) < 0.012


def test_a_sound_server_that_does_not_answer_holds_nothing_up() -> None:
    rig = Rig()
    answers = Event()
    rig.microphone.open = answers.wait  # type: ignore[method-assign, assignment]  # hangs
    rig.path.start()
    assert rig.path.pending() == {"microphone"}
    answers.set()
    deadline = time.monotonic() + 10.0
    while rig.path.pending():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [event.change for event in rig.events] == [OutputChange.BACK]
    rig.path.stop()


def test_recorders_that_fail_hide_the_sound_from_no_other_and_each_is_told_once() -> None:
    def fail(sound: AudibleSound) -> None:
        raise ValueError(f"no room at {sound.at}")

    def fail_too(_sound: AudibleSound) -> None:
        raise ValueError("the ring is gone")

    recorded: list[AudibleSound] = []
    path = SoundPath(
        SoundSettings(),
        [],
        [fail, fail_too, recorded.append],
        send=lambda _sound: None,
        clock=FakeClock(),
        on_event=lambda _event: None,
    )
    with structlog.testing.capture_logs() as logs:
        for number in range(3):
            path._play(1.0 + number * BLOCK_SECONDS)
    assert len(recorded) == 3
    assert [line["event"] for line in logs] == ["sound.recorder_failed"] * 2


class Closing(Microphone):
    """Closes only when all of them are being closed."""

    def __init__(self, together: Barrier) -> None:
        super().__init__()
        self._together, self.closed = together, False

    def close(self) -> None:
        self._together.wait(5)
        self.closed = True


def path_of(microphones: Sequence[Microphone]) -> SoundPath:
    return SoundPath(
        SoundSettings(),
        microphones,
        [],
        send=lambda _sound: None,
        clock=FakeClock(),
        on_event=lambda _event: None,
    )


def test_all_microphones_are_closed_at_the_same_time() -> None:
    together = Barrier(20)
    microphones = [Closing(together) for _ in range(20)]
    path_of(microphones).stop()
    assert all(microphone.closed for microphone in microphones)


def test_microphones_are_closed_where_no_thread_can_be_started_or_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: Thread) -> None:
        raise Unavailable("no thread can be started")

    failing, other = Closing(Barrier(2)), Closing(Barrier(1))
    failing._together.abort()
    monkeypatch.setattr(sound_path, "start_thread", refuse)
    path_of([failing, other]).stop()
    assert other.closed


def test_a_recording_of_returned_sound_is_not_later_for_a_microphone_that_is_late() -> None:
    rig = Rig(latency=0.174, play="returned")
    rig.path.steer(LIVE, voice_alone=False)
    for _ in range(20):
        rig.path.returned.put(ReturnedSound(np.full(BLOCK, 7, np.int16), rig.clock.time))
        rig.tick(1)
        assert rig.recorded[-1].at == rig.clock.time
    assert rig.recorded[-1].samples.any()


def test_an_offset_holds_for_returned_sound_too() -> None:
    rig = Rig(play="returned", offset=0.1)
    rig.path.steer(LIVE, voice_alone=False)
    for number in range(1, 31):
        rig.path.returned.put(ReturnedSound(np.full(BLOCK, number, np.int16), rig.clock.time))
        rig.tick(1)
    assert rig.recorded[-1].samples[-1] == 30 - (10 + DEPTH - 1)
    assert not any(sound.samples.any() for sound in rig.recorded[:12])
