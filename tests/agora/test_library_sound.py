"""Traps of the wrapper's sound, over the stand-in: what it answers, and what it loses silently."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agora.cloud import Cloud
from tests.agora.inverter import Inverter
from tests.agora.side import APP, TOKEN, wait_for
from tests.agora.test_library import result_of

# The wrapper without relayd, over the real hub; the engine of user 3 sends sound back inverted.
SETUP = f"""
import ctypes, sys
import numpy as np
from agora.rtc.audio_frame_observer import IAudioFrameObserver

def join(channel, publishes=True, scenario=AudioScenarioType.AUDIO_SCENARIO_DEFAULT):
    service = AgoraService()
    service.initialize(AgoraServiceConfig(
        appid={APP!r}, enable_video=1, audio_scenario=AudioScenarioType.AUDIO_SCENARIO_DEFAULT))
    connection = service.create_rtc_connection(
        RTCConnConfig(client_role_type=ClientRoleType.CLIENT_ROLE_BROADCASTER),
        RtcConnectionPublishConfig(
            audio_profile=AudioProfileType.AUDIO_PROFILE_MUSIC_STANDARD, audio_scenario=scenario,
            is_publish_audio=publishes))
    kept.append(noting(IRTCConnectionObserver))
    connection.register_observer(kept[-1])
    kept.append(connection.con_observer_handle)
    connection.publish_audio()
    connection.channel = channel
    return connection

def enter(connection):
    assert connection.connect({TOKEN!r}, connection.channel, "1") == 0
    wait_for("on_connected")

class Ears(IAudioFrameObserver):
    position = 8

    def __init__(self):
        self.frames, self.came = [], threading.Event()

    def on_get_audio_frame_position(self, user):
        return self.position

    def on_playback_audio_frame_before_mixing(self, user, channel, uid, frame, vad, pcm):
        self.frames.append((uid, frame, vad, pcm))
        self.came.set()
        return 1

def speak(connection, seconds, until=lambda: False):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        connection.push_audio_pcm_data(bytearray(b"\\x01\\x02" * 480), 48000, 1, 0)
        time.sleep(0.01)
"""


@pytest.fixture
def voice(agora: Cloud, channel: str) -> Iterator[Inverter]:
    with Inverter(agora.path, app_id=APP, channel=channel, token=TOKEN, sound=True) as engine:
        yield engine


def test_what_the_wrapper_answers_to_each_form_of_a_block(
    agora_site: Path, agora: Cloud, channel: str
) -> None:
    script = f"""
connection = join({channel!r})
enter(connection)
push = connection.push_audio_pcm_data
try:
    push(bytes(960), 48000, 1, 0)
except TypeError as fault:
    read_only = str(fault)
answers = [
    push(bytearray(960), 48000, 1, 0),
    push(np.zeros(480, np.int16).view(np.uint8), 48000, 1, 0),
    push(bytearray(961), 48000, 1, 0),
    push(bytearray(882), 44100, 1, 0),
    push(bytearray(1920), 48000, 1, 0),
    push(bytearray(), 48000, 1, 0),
]
half = push(np.zeros(480, np.int16), 48000, 1, 0)
interrupted = connection.interrupt_audio()
time.sleep(0.2)
connection.unpublish_audio()
after = push(bytearray(960), 48000, 1, 0)
time.sleep(0.2)
finish(read_only=read_only, answers=answers, half=half, interrupted=interrupted, after=after)
"""
    result = result_of(agora_site, SETUP + script, agora.path)
    assert result == {
        "read_only": "underlying buffer is not writable",
        "answers": [0, 0, -1002, -1002, 0, 0],
        "half": 0,
        "interrupted": -1000,  # though it did its work
        "after": 0,
    }
    # Two blocks of 10 ms, one of 20 ms and half a block; nothing after it was unpublished.
    sent = agora.members("1")[-1].sound
    assert (sent["count"], sent["samples"]) == (4, 240)


def test_a_second_observer_of_sound_breaks_the_wrapper(
    agora_site: Path, agora: Cloud, channel: str
) -> None:
    script = f"""
connection = join({channel!r})
first = connection.register_audio_frame_observer(Ears(), 0, None)
try:
    connection.register_audio_frame_observer(Ears(), 0, None)
except AttributeError as fault:
    finish(first=first, second=str(fault))
"""
    result = result_of(agora_site, SETUP + script, agora.path)
    assert result["first"] == 0
    assert "unregister_audio_frame_observer" in str(result["second"])


@pytest.mark.usefixtures("voice")
def test_sound_before_mixing_comes_as_blocks_of_10_ms_without_voice_detection(
    agora_site: Path, agora: Cloud, channel: str
) -> None:
    script = f"""
connection, ears = join({channel!r}), Ears()
user = connection.get_local_user()
user.set_playback_audio_frame_before_mixing_parameters(1, 48000)
registered = connection.register_audio_frame_observer(ears, 0, None)
kept.append(user.audio_frame_observer)
user.subscribe_audio("3")
enter(connection)
speak(connection, 10, ears.came.is_set)
uid, frame, vad, pcm = ears.frames[0]
samples = np.frombuffer(frame.buffer, np.int16)
finish(uid=uid, form=[frame.samples_per_channel, frame.channels, frame.samples_per_sec],
    bytes=[type(frame.buffer).__name__, len(frame.buffer)], vad=[vad, pcm],
    inverted=bool((samples == -0x0201).all()))
"""
    assert result_of(agora_site, SETUP + script, agora.path) == {
        "uid": "3",
        "form": [480, 1, 48000],
        "bytes": ["bytearray", 960],
        "vad": [-1, None],
        "inverted": True,
    }


MISTAKES = {
    "no form of the blocks": "register(); subscribe()",
    "their form set too late": "register(); set_form(1, 48000); subscribe()",
    "another form": "set_form(2, 16000); register(); subscribe()",
    "no subscription": "set_form(1, 48000); register()",
    "the wrapper's own position": "ears.position = 1; set_form(1, 48000); register(); subscribe()",
    "none": "set_form(1, 48000); register(); subscribe()",
}


@pytest.mark.usefixtures("voice")
def test_a_mistake_of_the_preparation_is_silence_without_an_error(
    agora_site: Path, agora: Cloud, channel: str
) -> None:
    script = f"""
connection = join({channel!r})
user, results = connection.get_local_user(), {{}}
for mistake, preparation in {MISTAKES!r}.items():
    ears, answers = Ears(), []
    exec(preparation, {{
        "ears": ears,
        "set_form": lambda *form: answers.append(
            user.set_playback_audio_frame_before_mixing_parameters(*form)),
        "register": lambda: answers.append(
            connection.register_audio_frame_observer(ears, 0, None)),
        "subscribe": lambda: answers.append(user.subscribe_audio("3")),
    }})
    enter(connection)
    speak(connection, 10 if mistake == "none" else 0.5, ears.came.is_set)
    results[mistake] = [bool(ears.frames), sorted(set(answers))]
    kept.append(user.audio_frame_observer)
    connection.release()
    connection = connection.rtc_engine.create_rtc_connection(
        RTCConnConfig(), connection.publish_config)
    connection.channel = {channel!r}
    kept.append(noting(IRTCConnectionObserver))
    connection.register_observer(kept[-1])
    kept.append(connection.con_observer_handle)
    connection.publish_audio()
    user = connection.get_local_user()
finish(**results)
"""
    results = result_of(agora_site, SETUP + script, agora.path)
    assert results == {mistake: [mistake == "none", [0]] for mistake in MISTAKES}


def test_the_scenario_for_ai_servers_makes_another_track_and_an_observer_of_capabilities(
    agora_site: Path, agora: Cloud, channel: str
) -> None:
    script = f"""
connection = join({channel!r}, scenario=AudioScenarioType.AUDIO_SCENARIO_AI_SERVER)
enter(connection)
finish(registered=connection._capabilities_observer_handle is not None)
"""
    assert result_of(agora_site, SETUP + script, agora.path) == {"registered": True}
    names = [call.name for call in agora.calls()]
    assert "service_create_direct_custom_audio_track_pcm" in names
    assert "service_create_custom_audio_track_pcm" not in names


def test_sound_is_published_unless_that_is_turned_off(
    agora_site: Path, agora: Cloud, channel: str
) -> None:
    script = "finish(default=RtcConnectionPublishConfig().is_publish_audio)"
    assert result_of(agora_site, SETUP + script, agora.path) == {"default": True}
    script = f"""
connection = join({channel!r}, publishes=False)
enter(connection)
finish(push=connection.push_audio_pcm_data(bytearray(960), 48000, 1, 0))
"""
    assert result_of(agora_site, SETUP + script, agora.path) == {"push": -1001}
    wait_for("the hub has seen it", lambda: agora.members("1"))
    assert agora.members("1")[-1].publishes == []
