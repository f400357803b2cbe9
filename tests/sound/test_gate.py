"""Who may hear the voice: what was said while nobody might is never heard."""

import numpy as np
import pytest

from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, AudibleSound, OwnSound, Samples
from relayd.sound.gate import Line, Silence, SoundGate
from relayd.sound.line import DelayLine
from relayd.sound.returned import ReturnedBuffer

DELAY = 0.3


class Talk:
    """Someone who says numbers without a pause, through a gate with a delay line."""

    def __init__(self, gate: SoundGate) -> None:
        self.gate = gate
        self.number = 0
        self.heard: list[Samples] = []

    def speak(self, blocks: int, *, arriving_late: int = 0) -> Samples:
        """Say so many blocks, each with its own value; return what is heard meanwhile."""
        for _ in range(blocks):
            self.number += 1
            spoken = self.number - arriving_late
            self.gate.push(OwnSound(np.full(BLOCK, spoken, np.int16), spoken * BLOCK_SECONDS))
            now = self.now + 0.01
            sound = self.gate.pull(now, now + 0.1)
            assert isinstance(sound, AudibleSound)
            assert sound.at == now + 0.1
            self.heard.append(sound.samples)
        return np.concatenate(self.heard[-blocks:])

    @property
    def now(self) -> float:
        """Monotonic s at the end of the last block."""
        return (self.number + 1) * BLOCK_SECONDS


def open_talk(line: Line | None = None) -> Talk:
    delayed = DelayLine()
    delayed.steer(DELAY)
    talk = Talk(SoundGate(line or delayed))
    talk.speak(100)
    return talk


def test_nothing_is_heard_before_the_first_live_picture() -> None:
    line = DelayLine()
    line.steer(DELAY)
    talk = Talk(SoundGate(line, Silence.NOT_LIVE))
    assert not talk.speak(100).any()
    talk.gate.open(Silence.NOT_LIVE, talk.now)
    first_heard = talk.number + 1
    heard = talk.speak(100)
    assert heard.any()
    assert set(heard[heard > 0][BLOCK:]) <= set(range(first_heard, 1000))


@pytest.mark.parametrize("reason", list(Silence))
def test_closing_fades_within_5_ms_into_digital_silence(reason: Silence) -> None:
    talk = open_talk()
    talk.gate.close(reason)
    heard = talk.speak(50)
    assert heard[:100].all()
    assert (np.diff(heard[:241].astype(int)) <= 0).all()
    assert not heard[240:].any()


@pytest.mark.parametrize("late", [0, 20])
def test_nothing_said_while_muted_is_heard_afterwards_even_if_it_arrives_then(late: int) -> None:
    talk = open_talk()
    talk.gate.close(Silence.MUTED)
    talk.speak(100, arriving_late=late)
    talk.gate.open(Silence.MUTED, talk.now)
    allowed = talk.number + 1
    heard = talk.speak(200, arriving_late=late)
    assert heard.any()
    voiced = heard[heard > 0]
    assert voiced[BLOCK:].min() >= allowed


def test_a_mute_shorter_than_a_block_still_clears_what_was_said() -> None:
    talk = open_talk()
    talk.gate.close(Silence.MUTED)
    talk.gate.open(Silence.MUTED, talk.now)
    allowed = talk.number + 1
    heard = talk.speak(100)
    assert not heard[BLOCK : 20 * BLOCK].any()
    assert heard[-1] >= allowed


def test_it_opens_when_the_last_reason_is_gone() -> None:
    talk = open_talk()
    for reason in (Silence.MUTED, Silence.PAUSED, Silence.MUTED):
        talk.gate.close(reason)
    talk.gate.open(Silence.MUTED, talk.now)
    assert talk.gate.reasons == {Silence.PAUSED}
    assert not talk.speak(100)[BLOCK:].any()
    talk.gate.open(Silence.STANDBY, talk.now)  # was not closed for it
    assert not talk.speak(100).any()
    talk.gate.open(Silence.PAUSED, talk.now)
    assert talk.speak(100).any()


def test_the_line_is_overwritten_by_a_mute() -> None:
    line = DelayLine()
    line.steer(DELAY)
    talk = open_talk(line)
    talk.gate.close(Silence.MUTED)
    talk.speak(1)
    assert not line._timeline._ring.any()


@pytest.mark.parametrize("reason", [Silence.MUTED, Silence.PAUSED])
def test_the_service_gets_nothing_that_was_said_while_muted_or_paused(reason: Silence) -> None:
    gate = SoundGate(DelayLine())
    before, during, after = (OwnSound(np.ones(BLOCK, np.int16), at) for at in (1.0, 2.0, 3.0))
    assert gate.may_send(before)
    gate.close(reason)
    assert not gate.may_send(during)
    gate.open(reason, 2.5)
    assert not gate.may_send(during)
    assert gate.may_send(after)


@pytest.mark.parametrize("reason", [Silence.NOT_LIVE, Silence.STANDBY])
def test_the_service_gets_the_voice_while_the_swap_is_away(reason: Silence) -> None:
    gate = SoundGate(DelayLine(), reason)
    assert gate.may_send(OwnSound(np.ones(BLOCK, np.int16), 1.0))


def test_returned_sound_obeys_the_same_gate() -> None:
    talk = open_talk(ReturnedBuffer())
    assert talk.heard[-1].any()
    talk.gate.close(Silence.MUTED)
    assert not talk.speak(50)[240:].any()
    talk.gate.open(Silence.MUTED, talk.now)
    assert talk.speak(50).any()
