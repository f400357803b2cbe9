import dataclasses
from typing import Any

from relayd.commands.remote import _NEEDED, describe_status, outcome
from relayd.control.api import status_json
from relayd.media.delay import Spread
from relayd.relay.status import DemandState, RelayState, RelayStatus
from tests.control.conftest import SOUND


def describe(**fields: Any) -> dict[str, str]:
    """Describe the status of a relay on standby, with these fields changed."""
    return dict(describe_status(status_json(dataclasses.replace(STANDBY, **fields))))


STANDBY = RelayStatus(
    name="studio",
    state=RelayState.STANDBY,
    reason="no program reads the camera",
    since=1.0,
    uptime=2.0,
    source="/dev/video9",
    source_alive=False,
    session_id=None,
    sessions_open=0,
    fps=20.0,
    delay=Spread(),
    own_delay=Spread(),
    longest_gap=0.05,
    readers={"/dev/video0": 2, "/dev/video1": None},
    on_demand=DemandState.IDLE,
)


def test_status_shows_the_readers_of_each_camera_and_the_state_of_on_demand() -> None:
    status = describe()
    assert status["on demand"] == "idle"
    assert status["source"] == "/dev/video9 (released)"
    assert status["readers /dev/video0"] == "2"
    assert status["readers /dev/video1"] == "unknown"


def test_status_says_that_decoding_is_too_slow() -> None:
    slow = "decoding is too slow: 32 s behind"
    assert describe(source_alive=True)["source"] == "/dev/video9 (ok)"
    assert describe(source_alive=True, source_slow=slow)["source"] == f"/dev/video9 ({slow})"


def test_status_shows_doubtful_sessions_only_if_there_are_any() -> None:
    assert "doubtful" not in describe()
    assert describe(sessions_doubtful=2)["doubtful"] == (
        "2 session(s) may be open at the service: look at your account"
    )


def test_status_shows_the_days_limit_only_if_there_is_one() -> None:
    assert "today" not in describe(spent_today=90.0)
    assert describe(spent_today=90.0, daily_limit=3600.0)["today"] == "0:01:30 of 1:00:00"
    text = "50 of today's 60 minutes are used"
    assert describe(spent_today=3000.0, daily_limit=3600.0, budget=text)["today"] == text


def test_status_says_how_the_sound_is_and_who_hears_it() -> None:
    assert not any(name == "sound" for name, _ in describe_status(status_json(STANDBY)))
    heard = dataclasses.replace(STANDBY, sound=SOUND)
    assert ("sound", "450 ms after capture, -20 dBFS") in describe_status(status_json(heard))
    assert ("listeners relayd microphone", "1") in describe_status(status_json(heard))
    assert ("listeners other", "unknown") in describe_status(status_json(heard))
    silent = dataclasses.replace(SOUND, silent_for=("muted", "not_live"))
    said = dict(describe_status(status_json(dataclasses.replace(STANDBY, sound=silent))))
    assert said["sound"] == "muted, silent until the first swapped picture"


def test_the_status_of_a_relay_of_an_older_version_is_shown_as_well() -> None:
    older = dict(status_json(STANDBY))
    for field in ("sessions_doubtful", "spent_today", "daily_limit", "budget"):
        del older[field]
    assert ("relay", "studio") in describe_status(older)


def test_a_command_is_reported_in_one_line_with_its_result() -> None:
    status = status_json(dataclasses.replace(STANDBY, reason="paused", paused=True))
    assert outcome("paused", status) == "studio: paused; now Standing by: paused"
    assert outcome("resumed", status_json(dataclasses.replace(STANDBY, reason=""))) == (
        "studio: resumed; now Standing by"
    )


def test_every_status_has_the_fields_that_are_shown() -> None:
    status = status_json(STANDBY)
    assert all(isinstance(status[name], kind) for name, kind in _NEEDED.items())
