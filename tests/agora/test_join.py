"""The way in, and pictures both ways."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relayd.errors import ConfigError, JoinRefused, LinkError, LinkForbidden
from relayd.rtc.agora.folder import KEPT
from relayd.rtc.link import LinkEventKind
from tests.agora.cloud import Cloud
from tests.agora.inverter import Inverter
from tests.agora.side import APP, TOKEN, Side, member, names_of, picture, stop_and_collect_calls
from tests.agora.test_token import PUBLISHED, PUBLISHED_CHANNEL


def test_a_picture_is_sent_and_comes_back_from_the_engine(side: Side) -> None:
    side.live()
    returned = side.new_frame()
    np.testing.assert_array_equal(returned, 255 - picture())
    assert side.kinds()[:4] == [
        LinkEventKind.READY,
        LinkEventKind.JOINED,
        LinkEventKind.PUBLISHING,
        LinkEventKind.FIRST_PICTURE,
    ]


def test_the_service_is_started_with_video_and_without_its_own_audio_scenario(
    side: Side, agora: Cloud
) -> None:
    side.live()
    seen = agora.services()[-1]
    assert (seen.video, seen.profile, seen.scenario, seen.string_uid) == (1, 1, 0, 0)
    assert "local_user_register_capabilities_observer" not in {
        call.name for call in agora.calls(seen.pid)
    }


def test_ids_that_are_no_numbers_are_joined_as_text(
    agora: Cloud, start: Callable[..., Side]
) -> None:
    agora.open("by-name", app_id=APP, token=TOKEN)
    side = start(channel_id="by-name", front_user_id="anna", algorithm_user_id="swap")
    side.worker.join(side.target)
    side.wait_for_event(LinkEventKind.JOINED)
    assert agora.services()[-1].string_uid == 1
    side.pump_until("subscription", lambda: agora.members("anna")[-1].subscribes == ["swap"])


def test_the_encoder_gets_its_bitrate_in_kbit_once_and_right(side: Side, agora: Cloud) -> None:
    side.live()
    assert member(agora).encoder == {
        "width": 320,
        "height": 240,
        "fps": 20,
        "bitrate": 2_000_000,
        "min_bitrate": 2_000_000,
        "codec": 2,
    }


def test_everything_is_registered_published_and_subscribed_before_the_join(
    side: Side, agora: Cloud
) -> None:
    side.live()
    stop_and_collect_calls(agora, side)
    names = names_of(agora, side)
    before = names[: names.index("rtc_conn_connect")]
    for call in (
        "local_video_track_set_video_encoder_config",
        "rtc_conn_register_observer",
        "local_user_register_observer",
        "local_user_register_video_frame_observer",
        "local_user_publish_video",
        "local_user_subscribe_video",
    ):
        assert call in before


def test_every_call_comes_from_one_thread_and_none_from_a_callback(
    side: Side, agora: Cloud
) -> None:
    side.live()
    agora.will_expire(TOKEN)
    agora.interrupt()
    agora.resume()
    side.worker.renew("another")
    side.pump_until("renewal", lambda: member(agora).renewed)
    assert side.worker.leave(3.0)
    stop_and_collect_calls(agora, side)
    calls = agora.calls(side.worker.pid or 0)
    assert len({call.thread for call in calls}) == 1
    assert not [call for call in calls if call.in_callback]
    assert {"rtc_conn_renew_token", "rtc_conn_destroy"} <= {call.name for call in calls}


def test_each_observer_is_registered_once(side: Side, agora: Cloud) -> None:
    side.live()
    stop_and_collect_calls(agora, side)
    names = names_of(agora, side)
    for observer in ("rtc_conn_", "local_user_", "local_user_video_frame_"):
        name = {"local_user_video_frame_": "local_user_register_video_frame_observer"}.get(
            observer, f"{observer}register_observer"
        )
        assert names.count(name) == 1


def test_the_first_picture_is_requested_with_a_key_frame(side: Side, agora: Cloud) -> None:
    """In this channel a key frame comes by itself only each 60 s."""
    began = time.monotonic()
    side.live()
    assert time.monotonic() - began < 6
    assert member(agora).intra_requests["3"] >= 1


def test_key_frames_are_requested_until_the_engine_comes(
    agora: Cloud, channel: str, start: Callable[..., Side]
) -> None:
    side = start()
    side.worker.join(side.target)
    side.wait_for_event(LinkEventKind.JOINED)
    side.pump_until("two requests", lambda: member(agora).intra_requests.get("3", 0) >= 2)
    subscribe = "local_user_subscribe_video"
    side.pump_until("another try", lambda: names_of(agora, side).count(subscribe) >= 3)
    with Inverter(agora.path, app_id=APP, channel=channel, token=TOKEN):
        side.wait_for_event(LinkEventKind.FIRST_PICTURE)


def test_the_project_is_read_from_the_token_if_not_configured(
    agora: Cloud, start: Callable[..., Side]
) -> None:
    agora.open(PUBLISHED_CHANNEL, app_id="ea4df2d20e43424ab4a8028e1883b17f", token=PUBLISHED)
    side = start(app_id="", token=PUBLISHED, channel_id=PUBLISHED_CHANNEL)
    side.worker.join(side.target)
    side.wait_for_event(LinkEventKind.JOINED)


def test_a_missing_project_is_a_configuration_error(
    start: Callable[..., Side],
) -> None:
    side = start(app_id="")
    side.worker.join(side.target)
    refused = side.wait_for_event(LinkEventKind.REFUSED).error
    assert isinstance(refused, ConfigError)
    assert "rtc.app_id" in str(refused)


IMPOSSIBLE: dict[str, tuple[dict[str, str], type[LinkError], str]] = {
    "long channel": ({"channel_id": "c" * 65}, JoinRefused, "longer than 64 bytes"),
    "engine 0": ({"algorithm_user_id": "0"}, JoinRefused, "our own pictures"),
    "engine is us": ({"algorithm_user_id": "1"}, JoinRefused, "our own pictures"),
    "token of another channel": ({"token": PUBLISHED, "app_id": ""}, JoinRefused, "for channel"),
    "token of another user": (
        {
            "token": PUBLISHED,
            "app_id": "",
            "channel_id": PUBLISHED_CHANNEL,
            "front_user_id": "2",
        },
        JoinRefused,
        "for user '1', not '2'",
    ),
    "token of another project": ({"token": PUBLISHED}, LinkForbidden, "leave rtc.app_id empty"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_join_is_refused_before_the_sdk_is_used(
    agora: Cloud, start: Callable[..., Side], case: str
) -> None:
    changes, error, words = IMPOSSIBLE[case]
    side = start(**changes)
    side.worker.join(side.target)
    refused = side.wait_for_event(LinkEventKind.REFUSED).error
    assert type(refused) is error
    assert words in str(refused)
    assert names_of(agora, side) == []


def test_each_process_of_the_sdk_has_its_own_folder_in_the_state_directory(side: Side) -> None:
    side.live()
    folder = Path(side.target.state_directory) / "agora" / str(side.worker.pid)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_folders_of_dead_processes_do_not_pile_up(side: Side) -> None:
    folders = Path(side.target.state_directory) / "agora"
    for number in range(10):
        (folders / str(2**22 + number)).mkdir(parents=True)
    side.live()
    assert len(list(folders.iterdir())) == 1 + KEPT


def test_an_impossible_state_directory_is_reported_with_its_key(start: Callable[..., Side]) -> None:
    side = start(state_directory="/proc/none")
    side.worker.join(side.target)
    refused = side.wait_for_event(LinkEventKind.REFUSED).error
    assert isinstance(refused, ConfigError)
    assert "state.directory" in str(refused)


def test_the_worker_finds_the_librarys_parts_by_bare_name(side: Side, agora_site: Path) -> None:
    environment = Path(f"/proc/{side.worker.pid}/environ").read_bytes().split(b"\0")
    libraries = f"LD_LIBRARY_PATH={agora_site}/agora/agora_sdk".encode()
    assert any(line.startswith(libraries) for line in environment)
