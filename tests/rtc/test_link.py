import json
from typing import TYPE_CHECKING

import pytest

from relayd import errors
from relayd.errors import ConfigError, JoinRefused, LibraryUnavailable, RelaydError
from relayd.frames import Geometry
from relayd.rtc.kinds import load_link, require_link
from relayd.rtc.link import (
    LinkEvent,
    LinkEventKind,
    LinkStats,
    LinkTarget,
)

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, Kit


def test_a_target_survives_the_pipe_and_hides_its_token(server: "EchoServer", kit: "Kit"):
    target = kit.target(server, session_id="s1")
    assert LinkTarget.from_json(json.loads(json.dumps(target.to_json()))) == target
    assert kit.token not in repr(target)
    assert kit.token not in str(target)


@pytest.mark.parametrize(
    "event",
    [
        LinkEvent(LinkEventKind.READY),
        LinkEvent(LinkEventKind.DEGRADED, "publish: gone"),
        LinkEvent(LinkEventKind.STATS, stats=LinkStats(publish_kbit=1.5, round_trip=0.1, sent=4)),
    ],
)
def test_an_event_survives_the_pipe(event: LinkEvent):
    assert LinkEvent.from_json(json.loads(json.dumps(event.to_json()))) == event


@pytest.mark.parametrize(
    "error", [JoinRefused("no", mend="ask"), ConfigError(["one", "two"]), errors.LinkLost("x")]
)
def test_an_error_keeps_its_class_and_its_words_through_the_pipe(error: RelaydError):
    event = LinkEvent(LinkEventKind.REFUSED, error=error)
    arrived = LinkEvent.from_json(json.loads(json.dumps(event.to_json()))).error
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)


def test_the_wait_that_a_refusal_asks_for_comes_through_the_pipe():
    refusal = JoinRefused("no")
    refusal.retry_after = 60.0
    event = LinkEvent(LinkEventKind.REFUSED, error=refusal)
    arrived = LinkEvent.from_json(json.loads(json.dumps(event.to_json()))).error
    assert arrived is not None
    assert arrived.retry_after == 60.0


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
):
    def without(_name: str) -> None:
        raise ImportError("no", name="aiortc")

    monkeypatch.setattr("relayd.rtc.kinds.import_module", without)
    monkeypatch.setattr("relayd.rtc.kinds.find_spec", lambda _name: None)
    for use in (require_link, load_link):
        with pytest.raises(LibraryUnavailable, match=r"aiortc.*pip install"):
            use("webrtc")


def test_geometry_is_part_of_the_target(server: "EchoServer", kit: "Kit"):
    assert kit.target(server, geometry=Geometry(64, 48)).to_json()["width"] == 64
