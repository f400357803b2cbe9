"""When the voice may be heard: by the relay's state, and by who reads camera and microphone."""

from dataclasses import replace

import pytest

from relayd.config.loading import load_tree
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.policy import Policy, is_on_demand
from relayd.relay.status import RelayState
from relayd.sound.gate import Silence
from tests.relay.playbook import CAMERA, ENDED, Play, state_of

SOUND = Policy(sound=True)
ON_DEMAND = Policy(sound=True, on_demand=True, grace=30.0)
MICROPHONE = "relayd microphone"


def steered(play: Play) -> do.SteerSound:
    """Return how the sound is steered now."""
    return [each for _, each in play.history if isinstance(each, do.SteerSound)][-1]


def silent_for(play: Play) -> set[Silence]:
    return set(steered(play).silent_for)


def test_nothing_is_heard_before_the_first_live_picture() -> None:
    play = Play(SOUND)
    play.start()
    assert silent_for(play) == {Silence.NOT_LIVE}
    play.live()
    assert silent_for(play) == set()


@pytest.mark.parametrize(("standby", "expected"), [("keep", set()), ("mute", {Silence.STANDBY})])
def test_a_fault_after_that_mutes_only_who_wants_it(standby: str, expected: set[Silence]) -> None:
    play = Play(Policy(sound=True, sound_standby=standby)).live()  # type: ignore[arg-type]  # text
    play.feed(on.SourceDown("away"))
    assert play.state is RelayState.DEGRADED
    assert silent_for(play) == expected
    play.feed(on.SourceUp())
    assert silent_for(play) == set()
    play.feed(on.SessionEnded(1, ENDED), on.SessionClosed(1))
    assert state_of(play) is RelayState.BACKOFF
    assert silent_for(play) == expected


def test_a_pause_mutes_and_after_it_the_first_live_picture_is_awaited() -> None:
    play = Play(SOUND).live()
    play.feed(on.Paused())
    assert silent_for(play) == {Silence.PAUSED, Silence.NOT_LIVE}
    play.feed(on.SessionClosed(1), on.Resumed())
    assert silent_for(play) == {Silence.NOT_LIVE}


def test_a_microphone_alone_is_heard_at_once_without_a_session() -> None:
    play = Play(ON_DEMAND)
    play.feed(on.Started())
    assert play.feed(on.ListenersChanged(MICROPHONE, 1)) == [do.ResumeSource()]
    play.feed(on.SourceUp())
    assert play.numbers == []
    assert steered(play) == do.SteerSound(frozenset(), voice_alone=True)
    assert play.feed(on.ListenersChanged(MICROPHONE, 0)) == [do.SuspendSource()]
    assert silent_for(play) == {Silence.NOT_LIVE}


def test_a_camera_that_is_switched_on_later_cuts_nobody_off() -> None:
    play = Play(ON_DEMAND)
    play.feed(on.Started(), on.ListenersChanged(MICROPHONE, 1), on.SourceUp())
    play.feed(on.ReadersChanged(CAMERA, 1))
    assert play.numbers == [1]
    assert steered(play) == do.SteerSound(frozenset(), voice_alone=False)


def test_a_camera_that_is_switched_off_ends_the_session_and_not_the_voice() -> None:
    play = Play(ON_DEMAND)
    play.feed(on.Started(), on.ReadersChanged(CAMERA, 1), on.ListenersChanged(MICROPHONE, 1))
    play.feed(on.SourceUp())
    play.live()
    play.feed(on.ReadersChanged(CAMERA, 0))
    play.advance(31.0)
    assert any(isinstance(each, do.CloseSession) for _, each in play.history)
    assert not any(isinstance(each, do.SuspendSource) for _, each in play.history[-10:])
    assert steered(play) == do.SteerSound(frozenset(), voice_alone=True)


def test_listeners_that_cannot_be_counted_keep_the_source_open() -> None:
    play = Play(ON_DEMAND)
    play.feed(on.Started())
    assert play.feed(on.ListenersChanged(MICROPHONE, None)) == [do.ResumeSource()]


APART = Policy(sound=True, on_demand=True, grace=30.0, voice_apart=True)


def test_who_reads_only_the_microphone_opens_no_camera_where_the_voice_has_a_device() -> None:
    play = Play(APART)
    assert set(play.feed(on.Started())) == {do.SuspendSource(), do.SteerVoice(wanted=False)}
    assert play.feed(on.ListenersChanged(MICROPHONE, 1)) == [do.SteerVoice(wanted=True)]
    assert steered(play) == do.SteerSound(frozenset(), voice_alone=True)
    assert play.feed(on.ListenersChanged(MICROPHONE, 0)) == [do.SteerVoice(wanted=False)]
    assert silent_for(play) == {Silence.NOT_LIVE}


def test_listeners_that_cannot_be_counted_open_the_voice_and_no_camera() -> None:
    play = Play(APART)
    play.feed(on.Started())
    assert play.feed(on.ListenersChanged(MICROPHONE, None)) == [do.SteerVoice(wanted=True)]


def test_who_reads_only_the_camera_opens_no_device_for_the_voice() -> None:
    play = Play(APART)
    play.feed(on.Started())
    assert play.feed(on.ReadersChanged(CAMERA, 1))[0] == do.ResumeSource()
    assert do.SteerVoice(wanted=True) not in [each for _, each in play.history]


def test_cameras_whose_readers_cannot_be_counted_open_no_device_for_the_voice() -> None:
    play = Play(APART)
    play.feed(on.Started(), on.ListenersChanged(MICROPHONE, 0), on.ReadersChanged(CAMERA, None))
    assert do.ResumeSource() in [each for _, each in play.history]
    assert do.SteerVoice(wanted=True) not in [each for _, each in play.history]
    assert play.feed(on.ListenersChanged(MICROPHONE, 1)) == [do.SteerVoice(wanted=True)]


def test_a_stream_or_the_service_gets_the_voice_with_the_picture() -> None:
    play = Play(replace(APART, voice_recorded=True))
    play.feed(on.Started())
    assert {do.ResumeSource(), do.SteerVoice(wanted=True)} <= {
        *play.feed(on.ReadersChanged(CAMERA, 1))
    }


def test_a_pause_closes_the_device_of_the_voice_for_everybody() -> None:
    play = Play(APART)
    play.feed(on.Started(), on.ReadersChanged(CAMERA, 1), on.ListenersChanged(MICROPHONE, 1))
    commands = play.feed(on.Paused())
    assert {do.SuspendSource(), do.SteerVoice(wanted=False)} <= {*commands}
    assert {do.ResumeSource(), do.SteerVoice(wanted=True)} <= {*play.feed(on.Resumed())}


def test_a_relay_that_is_always_on_keeps_the_device_of_the_voice_open() -> None:
    play = Play(replace(APART, on_demand=False))
    play.feed(on.Started(), on.ListenersChanged(MICROPHONE, 1), on.ListenersChanged(MICROPHONE, 0))
    assert not any(isinstance(each, do.SteerVoice) for _, each in play.history)


def test_without_sound_nothing_is_steered() -> None:
    play = Play(Policy()).live()
    play.feed(on.Paused())
    assert not any(isinstance(each, do.SteerSound) for _, each in play.history)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["camera", "microphone"], True),
        (["microphone"], True),
        (["stream", "microphone"], False),
        (["camera", "stream", "microphone"], False),
    ],
)
def test_a_microphone_does_not_decide_whether_sessions_are_on_demand(
    kinds: list[str], *, expected: bool
) -> None:
    outputs = [{"kind": kind} | ({"url": "x.mkv"} if kind == "stream" else {}) for kind in kinds]
    assert is_on_demand(load_tree({"output": outputs})) is expected
