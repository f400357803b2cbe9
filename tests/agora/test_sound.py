"""The link's sound over the stand-in: what is sent and received, and that it costs no picture."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from relayd.rtc.agora.ears import Ears
from relayd.rtc.agora.events import ReceivedBlock
from relayd.rtc.agora.hearing import SILENT_FOR, Hearing
from relayd.rtc.link import LinkEventKind
from relayd.sound.blocks import BLOCK, BLOCK_BYTES, RATE, ReturnedSound
from tests.agora.cloud import Cloud
from tests.agora.inverter import Inverter
from tests.agora.side import APP, TOKEN, Side, block, member, names_of, stop_and_collect_calls

DEFAULT_SCENARIO, MUSIC_STANDARD = 0, 2
SOUND_CALLS = {
    "audio_pcm_data_sender_send",
    "local_user_publish_audio",
    "local_user_register_audio_frame_observer",
    "local_user_set_playback_audio_frame_before_mixing_parameters",
    "local_user_subscribe_audio",
    "media_node_factory_create_audio_pcm_data_sender",
    "service_create_custom_audio_track_pcm",
}
MOST_QUEUED = 0.03
"""s of sound that may wait in the SDK: a block is 0.01, and deadlines are met on a busy machine."""


@pytest.fixture
def voice(agora: Cloud, channel: str) -> Iterator[Inverter]:
    """The engine, which sends sound back as well."""
    with Inverter(agora.path, app_id=APP, channel=channel, token=TOKEN, sound=True) as engine:
        yield engine


@pytest.fixture
def speaker(voice: Inverter, start: Callable[..., Side]) -> Side:
    return start(publish_sound=True, return_sound=True)


def live(side: Side) -> int:
    """Speak until pictures and, where sound returns, blocks come; returns the next number."""
    side.worker.join(side.target)

    def has_begun() -> bool:
        has_sound = bool(side.sounds) or not side.target.return_sound
        return LinkEventKind.FIRST_PICTURE in side.kinds() and has_sound

    return side.speak_until("live, with sound", has_begun)


def hears_more(cloud: Cloud) -> Callable[[], bool]:
    """Whether the link's member was sent ten more blocks from now on."""
    before = member(cloud).heard
    return lambda: member(cloud).heard >= before + 10


def numbers(sounds: list[ReturnedSound]) -> list[int]:
    """The numbers of the published blocks that these are; each must be whole."""
    found = []
    for sound in sounds:
        number = -int(sound.samples[0])
        np.testing.assert_array_equal(sound.samples, -block(number).samples)
        found.append(number)
    return found


# Sound off


def test_a_link_without_sound_makes_no_call_for_it(
    voice: Inverter, start: Callable[..., Side], agora: Cloud
) -> None:
    side = start()
    side.live()
    side.pump_for(0.3)
    seen = member(agora)
    assert seen.publishes == ["video"]
    assert (seen.hears, seen.heard, seen.sound["count"]) == ([], 0, 0)
    stop_and_collect_calls(agora, side)
    assert not SOUND_CALLS & set(names_of(agora, side))
    assert side.sounds == []


def test_a_link_that_only_publishes_hears_nothing_and_the_other_way_round(
    voice: Inverter, start: Callable[..., Side], agora: Cloud
) -> None:
    speaks = start(publish_sound=True)
    live(speaks)
    assert (member(agora).publishes, member(agora).hears) == (["audio", "video"], [])
    assert speaks.sounds == []
    speaks.worker.stop(3.0)
    hears = start(return_sound=True)
    hears.live()
    assert (member(agora).publishes, member(agora).hears) == (["video"], ["3"])
    assert member(agora).sound["count"] == 0


# Publishing


def test_sound_is_published_as_mono_pcm_of_48_khz_in_the_profile_for_music(
    speaker: Side, agora: Cloud
) -> None:
    live(speaker)
    seen = member(agora)
    assert seen.sound_profile == [MUSIC_STANDARD, DEFAULT_SCENARIO]
    form = {"rate": RATE, "channels": 1, "samples": BLOCK, "stamped": 0}
    assert form.items() <= seen.sound.items()


def test_whole_blocks_go_there_and_back_in_order(speaker: Side) -> None:
    next_number = live(speaker)
    speaker.speak_until("a second of sound", lambda: len(speaker.sounds) > 100, first=next_number)
    came = numbers(speaker.sounds)
    assert came == sorted(set(came))
    before = time.monotonic()
    assert all(before - 10 < sound.at <= before for sound in speaker.sounds)


def test_a_burst_does_not_become_a_delay_in_the_sdk(speaker: Side, agora: Cloud) -> None:
    first = live(speaker)
    last = first + 15  # what the ring to the worker holds at once
    for number in range(first, last):
        speaker.worker.publish_sound(block(number))
    speaker.pump_until("all of it", lambda: last - 1 in numbers(speaker.sounds))
    sound = member(agora).sound
    assert sound["longest_queue"] < MOST_QUEUED
    assert sound["bursts"] == 0


def test_the_calls_for_sound_come_from_the_one_thread_in_their_order(
    speaker: Side, agora: Cloud
) -> None:
    live(speaker)
    stop_and_collect_calls(agora, speaker)
    calls = agora.calls(speaker.worker.pid or 0)
    of_sound = [call for call in calls if call.name in SOUND_CALLS]
    connecting = next(call for call in calls if call.name == "rtc_conn_connect")
    assert {call.name for call in of_sound} == SOUND_CALLS
    assert {call.thread for call in of_sound} == {connecting.thread}
    assert not [call for call in of_sound if call.in_callback]
    names = [call.name for call in calls]
    # The form of blocks is taken at the registration, of which a second breaks the wrapper.
    wanted = [
        "local_user_set_playback_audio_frame_before_mixing_parameters",
        "local_user_register_audio_frame_observer",
        "local_user_publish_audio",
        "local_user_subscribe_audio",
        "rtc_conn_connect",
    ]
    places = [names.index(name) for name in wanted]
    assert places == sorted(places)
    assert names.count("local_user_register_audio_frame_observer") == 1


# Hearing


def test_the_sound_of_somebody_else_never_arrives(speaker: Side, agora: Cloud) -> None:
    number = live(speaker)
    for sender in ("0", "77", "33"):
        agora.spoil_sound(sender=sender)
        for _ in range(2):  # the engine's own may be on its way the first time
            speaker.sounds.clear()
            number = speaker.speak_until("others", hears_more(agora), first=number)
        assert speaker.sounds == []


@pytest.mark.relay
def test_a_service_that_sends_no_sound_is_no_fault(
    engine: Inverter, start: Callable[..., Side], agora: Cloud
) -> None:
    side = start(publish_sound=True, return_sound=True)
    side.live()
    end = time.monotonic() + SILENT_FOR + 1.0
    side.speak_until("more than the library may be silent for", lambda: time.monotonic() > end)
    assert side.sounds == []
    assert side.kinds()[-1] is LinkEventKind.FIRST_PICTURE
    assert len(agora.members("1")) == 1


def test_sound_that_starts_late_arrives_and_ends_without_harm(
    engine: Inverter, start: Callable[..., Side]
) -> None:
    side = start(publish_sound=True, return_sound=True)
    number = live_without_sound(side)
    engine.sound = True
    number = side.speak_until("sound", lambda: side.sounds, first=number)
    engine.sound = False
    side.speak_until("a picture", lambda: side.frames.pop(0) if side.frames else None, first=number)
    assert LinkEventKind.DEGRADED not in side.kinds()


def live_without_sound(side: Side) -> int:
    side.worker.join(side.target)
    return side.speak_until("live", lambda: LinkEventKind.FIRST_PICTURE in side.kinds())


def test_a_user_that_comes_again_is_heard_again(speaker: Side, agora: Cloud) -> None:
    number = live(speaker)
    agora.go_away("3")
    number = speaker.speak_until(
        "it is gone", lambda: LinkEventKind.DEGRADED in speaker.kinds(), first=number
    )
    speaker.sounds.clear()
    agora.come_back("3")
    speaker.speak_until("sound again", lambda: speaker.sounds, first=number)


@pytest.mark.relay
def test_a_library_that_delivers_sound_only_with_playout_is_joined_again_with_it(
    speaker: Side, agora: Cloud
) -> None:
    agora.spoil_sound(needs_playout=True)
    number = live_without_sound(speaker)
    assert not member(agora).plays_out
    number = speaker.speak_until("sound", lambda: speaker.sounds, first=number)
    first, second = agora.members("1")
    assert (first.state, first.plays_out, second.plays_out) == ("left", False, True)
    speaker.frames.clear()
    speaker.speak_until(
        "pictures",
        lambda: speaker.frames and LinkEventKind.RECOVERED in speaker.kinds(),
        first=number,
    )
    assert speaker.kinds().count(LinkEventKind.DEGRADED) == 1
    assert speaker.worker.leave(3.0)
    assert speaker.kinds()[-1] is LinkEventKind.LEFT


# What the SDK refuses


def test_sound_that_the_sdk_refuses_costs_no_picture(
    voice: Inverter, start: Callable[..., Side], agora: Cloud
) -> None:
    used = SOUND_CALLS - {
        "media_node_factory_create_audio_pcm_data_sender",
        "service_create_custom_audio_track_pcm",
    }
    agora.preset(fail=dict.fromkeys(used, -1))
    side = start(publish_sound=True, return_sound=True)
    number = live_without_sound(side)
    side.frames.clear()
    side.speak_until("pictures", lambda: len(side.frames) > 5, first=number)
    assert side.sounds == []
    assert LinkEventKind.DEGRADED not in side.kinds()
    assert used <= set(names_of(agora, side))


@pytest.mark.parametrize(
    "form", [(16_000, 1, 320), (RATE, 2, 2 * BLOCK_BYTES), (RATE, 1, BLOCK_BYTES - 2), (RATE, 1, 0)]
)
def test_a_block_of_another_form_is_skipped(form: tuple[int, int, int]) -> None:
    rate, channels, size = form
    heard: list[object] = []
    hearing = Hearing("3", is_wanted=True)
    ears = Ears(hearing, lambda samples, at: heard.append((len(samples), at)))
    ears.hear(ReceivedBlock(rate, channels, bytearray(size), 7.0))
    assert heard == []
    assert hearing.heard_at == float("-inf")
    ears.hear(ReceivedBlock(RATE, 1, bytearray(BLOCK_BYTES), 8.0))
    assert heard == [(BLOCK, 8.0)]
    assert hearing.heard_at == 8.0
