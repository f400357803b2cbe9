import dataclasses
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relayd.relay.metrics import Metrics
from relayd.relay.status import OUTPUT_PENDING, DemandState, RelayState, RelayStatus
from tests.control.conftest import SOUND


def samples(
    metrics: Metrics, status: RelayStatus
) -> dict[tuple[str | tuple[str, str], ...], float]:
    """All samples by name and labels, read back by Prometheus' own parser."""
    body, _ = metrics.render(status)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_exactly_one_state_is_set(relay: Any) -> None:
    for state in RelayState:
        found = samples(Metrics(), dataclasses.replace(relay.now, state=state))
        states = {key[1][1]: value for key, value in found.items() if key[0] == "relayd_state"}
        assert states == {one.value: float(one is state) for one in RelayState}


def test_the_sound_has_its_series_where_there_is_some(relay: Any) -> None:
    silent = samples(Metrics(), relay.now)
    assert not any(str(key[0]).startswith("relayd_sound") for key in silent)
    sound = dataclasses.replace(SOUND, muted=True, silent_for=("muted",))
    found = samples(Metrics(), dataclasses.replace(relay.now, sound=sound))
    assert found["relayd_sound_delay_seconds",] == 0.45
    assert found["relayd_sound_target_seconds",] == 0.46
    assert found["relayd_sound_error_seconds",] == 0, "nothing is heard"
    assert found["relayd_sound_lost",] == 0
    sound = dataclasses.replace(SOUND, trouble="the source's sound stopped")
    heard = samples(Metrics(), dataclasses.replace(relay.now, sound=sound))
    assert heard["relayd_sound_error_seconds",] == pytest.approx(-0.01)
    assert heard["relayd_sound_lost",] == 1
    assert found["relayd_sound_level_dbfs",] == -20
    assert found["relayd_sound_muted", ("reason", "muted")] == 1
    assert found["relayd_sound_muted", ("reason", "paused")] == 0
    assert found["relayd_sound_blocks_total", ("stage", "played")] == 299
    assert found["relayd_sound_dropped_total", ("reason", "full"), ("stage", "captured")] == 2
    assert found["relayd_sound_gap_seconds_total",] == 0.5
    assert found["relayd_sound_cuts_total", ("kind", "pause")] == 3
    assert found["relayd_microphone_readers", ("name", "relayd microphone")] == 1
    assert ("relayd_microphone_readers", ("name", "other")) not in found


def test_the_series_hold_what_the_status_says(relay: Any) -> None:
    found = samples(Metrics(), relay.now)
    assert found["relayd_frames_total", ("stage", "shown")] == 20
    assert found["relayd_frames_dropped_total", ("reason", "late"), ("stage", "pacer")] == 3
    assert found["relayd_reconnects_total", ("part", "link")] == 1
    assert found["relayd_sessions_open",] == 1
    assert found["relayd_session_seconds_total",] == 77.5
    assert found["relayd_sessions_doubtful_total",] == 2
    assert found["relayd_session_seconds_today",] == 1800
    assert found["relayd_daily_limit_seconds",] == 3600
    assert found["relayd_uptime_seconds",] == 100
    assert found["relayd_healthy",] == 1
    assert found["relayd_output_up", ("output", "/dev/video10")] == 1
    assert found["relayd_source_behind_seconds",] == 31.5
    build = next(key for key in found if key[0] == "relayd_build_info")
    assert ("relay", "studio") in build


def test_readers_are_a_series_a_camera_and_none_where_they_are_not_known(relay: Any) -> None:
    readers = {"/dev/video10": 1, "/dev/video11": None}
    found = samples(Metrics(), dataclasses.replace(relay.now, readers=readers))
    assert found["relayd_camera_readers", ("device", "/dev/video10")] == 1
    assert ("relayd_camera_readers", ("device", "/dev/video11")) not in found
    demand = {key[1][1]: value for key, value in found.items() if key[0] == "relayd_on_demand"}
    assert demand == {one.value: float(one is DemandState.LIVE) for one in DemandState}


def test_credit_is_a_series_only_where_the_service_reports_it(relay: Any) -> None:
    assert ("relayd_service_credit",) not in samples(Metrics(), relay.now)
    status = dataclasses.replace(relay.now, credit=42.5)
    assert samples(Metrics(), status)["relayd_service_credit",] == 42.5


def test_each_histogram_counts_what_was_observed(relay: Any) -> None:
    metrics = Metrics()
    for seconds in (0.012, 0.04, 0.3):
        metrics.observe_frame_age(seconds)
    metrics.observe_output_gap(0.051)
    metrics.observe_output_gap(0.2)
    metrics.observe_delay(0.45)
    found = samples(metrics, relay.now)
    assert found["relayd_frame_age_seconds_bucket", ("le", "0.05")] == 2
    assert found["relayd_frame_age_seconds_count",] == 3
    assert found["relayd_output_gap_seconds_bucket", ("le", "0.1")] == 1
    assert found["relayd_output_gap_seconds_bucket", ("le", "+Inf")] == 2
    assert found["relayd_delay_seconds_bucket", ("le", "0.4")] == 0
    assert found["relayd_delay_seconds_bucket", ("le", "0.5")] == 1


def test_two_relays_in_one_process_share_no_series(relay: Any) -> None:
    one, other = Metrics(), Metrics()
    one.observe_delay(1.0)
    assert samples(other, relay.now)["relayd_delay_seconds_count",] == 0


def test_a_hostile_label_cannot_forge_a_line(relay: Any) -> None:
    status = dataclasses.replace(relay.now, reconnects={'x"} 1\nrelayd_healthy 0\n': 1})
    assert samples(Metrics(), status)["relayd_healthy",] == 1


def test_each_output_has_a_series_that_says_whether_it_works(relay: Any) -> None:
    outputs = {"/dev/video10": "ok", "rtmp://h/live/***": "Connection refused"}
    found = samples(Metrics(), dataclasses.replace(relay.now, outputs=outputs))
    assert found["relayd_output_up", ("output", "/dev/video10")] == 1
    assert found["relayd_output_up", ("output", "rtmp://h/live/***")] == 0


def test_names_that_are_not_utf8_are_written_as_escapes(relay: Any) -> None:
    name = "/srv/\udcff.mkv"
    status = dataclasses.replace(
        relay.now, name="\udcff", outputs={name: "ok"}, readers={"/dev/\udcff": 1}
    )
    found = samples(Metrics(), status)
    assert found["relayd_output_up", ("output", "/srv/\\udcff.mkv")] == 1
    assert found["relayd_camera_readers", ("device", "/dev/\\udcff")] == 1


def test_an_output_that_is_not_connected_yet_is_not_up(relay: Any) -> None:
    status = dataclasses.replace(relay.now, outputs={"rtmp://h/…": OUTPUT_PENDING})
    assert samples(Metrics(), status)["relayd_output_up", ("output", "rtmp://h/…")] == 0
