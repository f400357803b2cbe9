import json
from typing import TYPE_CHECKING

import pytest

from relayd import errors
from relayd.errors import ConfigError, JoinRefused, LibraryUnavailable, RelaydError
from relayd.logs import conceal
from relayd.media.frames import Geometry
from relayd.rtc.kinds import load_link, require_link
from relayd.rtc.link import (
    LARGEST_PACKET,
    LONGEST_TEXT,
    LinkEvent,
    LinkEventKind,
    LinkStats,
    LinkTarget,
)
from relayd.rtc.webrtc import engines

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, Kit


def test_a_target_survives_the_pipe_and_hides_its_token(server: "EchoServer", kit: "Kit") -> None:
    target = kit.target(server, session_id="s1")
    assert LinkTarget.from_json(json.loads(json.dumps(target.to_json()))) == target
    assert kit.token not in repr(target)
    assert kit.token not in str(target)


def through_the_pipe(event: LinkEvent) -> LinkEvent:
    arrived = LinkEvent.from_json(json.loads(json.dumps(event.to_json())))
    assert arrived is not None
    return arrived


@pytest.mark.parametrize(
    "event",
    [
        LinkEvent(LinkEventKind.READY),
        LinkEvent(LinkEventKind.DEGRADED, "publish: gone"),
        LinkEvent(LinkEventKind.STATS, stats=LinkStats(publish_kbit=1.5, round_trip=0.1, sent=4)),
    ],
)
def test_an_event_survives_the_pipe(event: LinkEvent) -> None:
    assert through_the_pipe(event) == event


@pytest.mark.parametrize(
    "error", [JoinRefused("no", hint="ask"), ConfigError(["one", "two"]), errors.LinkLost("x")]
)
def test_an_error_keeps_its_class_and_text_through_the_pipe(error: RelaydError) -> None:
    event = LinkEvent(LinkEventKind.REFUSED, error=error)
    arrived = through_the_pipe(event).error
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)


def test_the_retry_after_of_a_refusal_survives_the_pipe() -> None:
    refusal = JoinRefused("no")
    refusal.retry_after = 60.0
    event = LinkEvent(LinkEventKind.REFUSED, error=refusal)
    arrived = through_the_pipe(event).error
    assert arrived is not None
    assert arrived.retry_after == 60.0


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without(_name: str) -> None:
        raise ImportError("no", name="aiortc")

    monkeypatch.setattr(engines, "import_module", without)
    monkeypatch.setattr(engines, "find_spec", lambda _name: None)
    for use in (require_link, load_link):
        with pytest.raises(LibraryUnavailable, match=r"aiortc.*pip install"):
            use("webrtc")


def test_geometry_is_part_of_the_target(server: "EchoServer", kit: "Kit") -> None:
    assert kit.target(server, geometry=Geometry(64, 48)).to_json()["width"] == 64


@pytest.mark.parametrize("letter", ["x", "\n", "\x00", "\N{GRINNING FACE}"])
def test_an_event_fits_into_its_packet_however_long_a_servers_text(letter: str) -> None:
    text = letter * LARGEST_PACKET
    event = LinkEvent(LinkEventKind.LOST, text, error=JoinRefused(text, hint=text))
    assert len(json.dumps(event.to_json()).encode()) <= LARGEST_PACKET
    arrived = through_the_pipe(event)
    assert len(arrived.reason) == LONGEST_TEXT
    assert arrived.reason.endswith("…")


def test_no_part_of_a_secret_is_left_at_the_cut_of_a_text() -> None:
    secret = "a-secret-that-lies-across-the-cut"
    conceal(secret)
    event = LinkEvent(LinkEventKind.DEGRADED, "-" * (LONGEST_TEXT - 10) + secret)
    assert through_the_pipe(event).reason == "-" * (LONGEST_TEXT - 10) + "***"


@pytest.mark.parametrize(
    "name", ["session_id", "app_id", "publish_url", "play_url", "state_directory", "token_age"]
)
def test_a_target_needs_every_field_without_a_sensible_default(
    name: str, server: "EchoServer", kit: "Kit"
) -> None:
    values = {
        each: getattr(kit.target(server), each)
        for each in LinkTarget.__dataclass_fields__
        if each != name
    }
    with pytest.raises(TypeError, match=name):
        LinkTarget(**values)


def test_the_session_is_in_the_url_whose_template_names_it(
    server: "EchoServer", kit: "Kit"
) -> None:
    template = "https://sfu.example/{session_id}/whip"
    target = kit.target(server, session_id="s 1", publish_url=template)
    assert target.publish_endpoint() == "https://sfu.example/s%201/whip"


def test_a_template_is_not_filled_with_an_empty_value(server: "EchoServer", kit: "Kit") -> None:
    target = kit.target(server, app_id="", play_url="https://sfu.example/{app_id}/whep")
    with pytest.raises(ConfigError, match=r"rtc\.play_url.*\{app_id\} is empty"):
        target.play_endpoint()
