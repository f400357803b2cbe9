"""The link over each engine, and what it does where a server refuses the first one's offer."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response

from relayd.errors import JoinRefused, LibraryUnavailable
from relayd.media.frames import SourceFrame
from relayd.rtc.kinds import require_link, worker_environment
from relayd.rtc.link import LinkEvent, LinkEventKind
from relayd.rtc.process import RtcWorker
from relayd.rtc.webrtc import engines
from relayd.rtc.webrtc import link as webrtc_link
from relayd.rtc.webrtc.engine import EngineName
from relayd.rtc.webrtc.fallback import EngineChoice
from relayd.sound.blocks import BLOCK, RATE
from tests.rtc.unplugged import unplug

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, EventCollector, Kit, Links

TONE = (np.sin(2 * np.pi * 1000 * np.arange(BLOCK) / RATE) * 8000).astype(np.int16)

needs_libwebrtc = pytest.mark.skipif(
    find_spec("wrtc") is None, reason="wrtc is not installed (the extra libwebrtc)"
)
each = pytest.mark.parametrize(
    "engine", ["aiortc", pytest.param("libwebrtc", marks=needs_libwebrtc)]
)


@each
def test_pictures_and_sound_go_out_and_come_back_and_both_resources_are_deleted(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    engine: EngineName,
) -> None:
    server.sound = True
    target = kit.target(server, engine=engine, publish_sound=True, return_sound=True)
    link = links(target, collector)
    kit.pump.start(link.publish, kit.picture())
    kit.pump.speak(link.publish_sound, TONE)
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert kit.wait_for(lambda: len(collector.pictures) > 10)
    assert kit.psnr(collector.pictures[-1][0], 255 - kit.picture()) > 28
    assert kit.wait_for(
        lambda: any(np.abs(samples).max() > 4000 for samples, _ in collector.blocks[-100:])
    )
    kit.pump.stop()
    link.leave(time.monotonic() + 3)
    assert len(server.deletes("/whip/")) == len(server.deletes("/whep/")) == 1
    assert collector.kinds()[-1] is LinkEventKind.LEFT
    assert server.peers == {}


@each
def test_nothing_of_sound_is_offered_unless_it_is_asked_for(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    engine: EngineName,
) -> None:
    link = links(kit.target(server, engine=engine), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert not any("m=audio" in offer for offer in server.offers.values())


@each
@pytest.mark.parametrize("kind", ["whip", "whep"])
def test_a_connection_that_the_server_drops_comes_back_by_itself(  # noqa: PLR0917 - two are parameters
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    engine: EngineName,
    kind: str,
) -> None:
    link = links(kit.target(server, engine=engine), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    server.run(lambda peer: peer.close(), kind)
    collector.wait_for(LinkEventKind.DEGRADED)
    collector.wait_for(LinkEventKind.RECOVERED)
    pictures = len(collector.pictures)
    assert kit.wait_for(lambda: len(collector.pictures) > pictures + 3)
    assert len(server.deletes(f"/{kind}/")) == 1


@each
def test_a_connection_that_dies_silently_is_noticed_and_comes_back(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    engine: EngineName,
) -> None:
    link = links(kit.target(server, engine=engine), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    server.run(unplug, "whip")
    collector.wait_for(LinkEventKind.DEGRADED, within=20)
    collector.wait_for(LinkEventKind.RECOVERED)


def takes_h264_alone(server: "EchoServer", status: int) -> Callable[[Request], Response | None]:
    """Refuse what offers no H.264, as libwebrtc without OpenH264."""

    def decide(request: Request) -> Response | None:
        offer = server.offers[request.path_params["kind"]]
        return None if "H264" in offer else Response(None, status)

    return decide


@needs_libwebrtc
@pytest.mark.parametrize("status", [400, 406, 415, 422])
def test_what_a_server_refuses_of_one_engine_is_tried_with_the_other(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit", status: int
) -> None:
    server.whip = server.whep = takes_h264_alone(server, status)
    link = links(kit.target(server, engine="auto"), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert len(server.posts("whip")) == len(server.posts("whep")) == 2
    assert LinkEventKind.DEGRADED not in collector.kinds()
    assert collector.wait_for(LinkEventKind.JOINED).reason.startswith("aiortc ")


@needs_libwebrtc
def test_an_answer_that_rejects_the_pictures_is_tried_with_the_other_engine_and_deleted(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    rejecting = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 0 UDP/TLS/RTP/SAVPF 0\r\n"

    def reject(request: Request) -> Response | None:
        if "H264" in server.offers["whip"]:
            return None
        headers = {"Location": f"{request.url.path}/1"}
        return Response(rejecting, 201, headers, media_type="application/sdp")

    server.whip = reject
    links(kit.target(server, engine="auto"), collector)
    assert collector.wait_for(LinkEventKind.JOINED).reason.startswith("aiortc ")
    assert len(server.deletes("/whip/1")) == 1


@needs_libwebrtc
def test_sound_is_offered_again_with_the_other_engine(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.sound = True
    server.whip = takes_h264_alone(server, 406)
    link = links(kit.target(server, engine="auto", publish_sound=True), collector)
    collector.wait_for(LinkEventKind.JOINED)
    assert len(server.posts("whip")) == 3  # libwebrtc with and without sound, aiortc with
    assert "m=audio" in server.offers["whip"]
    assert link._publish.sound


@needs_libwebrtc
@pytest.mark.parametrize(
    ("engine", "posts"), [("auto", 2), ("libwebrtc", 1), ("aiortc", 1)], ids=str
)
def test_a_server_that_takes_no_offer_at_all_ends_the_link(  # noqa: PLR0917 - two are parameters
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    engine: str,
    posts: int,
) -> None:
    server.whip = lambda _request: Response(None, 406)
    links(kit.target(server, engine=engine), collector)
    refused = collector.wait_for(LinkEventKind.REFUSED)
    assert isinstance(refused.error, JoinRefused)
    assert "406" in str(refused.error)
    assert len(server.posts("whip")) == posts


@needs_libwebrtc
def test_a_refused_token_is_tried_with_one_engine_alone(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.whip = lambda _request: Response(None, 401)
    links(kit.target(server, engine="auto"), collector)
    collector.wait_for(LinkEventKind.REFUSED)
    assert len(server.posts("whip")) == 1


@each
def test_the_figures_name_engine_codec_and_path(  # noqa: PLR0917 - one is a parameter
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    monkeypatch: pytest.MonkeyPatch,
    engine: EngineName,
) -> None:
    monkeypatch.setattr(webrtc_link, "STATS_INTERVAL", 0.4)
    link = links(kit.target(server, engine=engine), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    seen = len(collector.events)
    assert kit.wait_for(
        lambda: any(event.stats and event.stats.received > 8 for event in collector.events[seen:])
    )
    stats = [event.stats for event in collector.events if event.stats][-1]
    assert (stats.publish_engine, stats.play_engine) == (engine, engine)
    codec = "H264" if engine == "aiortc" else "VP8"
    assert (stats.publish_codec, stats.play_codec) == (codec, codec)
    assert stats.publish_path.endswith(" udp")
    assert stats.play_path.endswith(" udp")
    assert 100 <= stats.publish_target_kbit <= 2000


@each
def test_a_worker_process_carries_pictures_and_sound_and_says_with_which_library(
    server: "EchoServer", kit: "Kit", engine: EngineName
) -> None:
    server.sound = True
    events: list[LinkEvent] = []
    shown: list[object] = []
    heard: list[int] = []
    worker = RtcWorker(
        kit.geometry,
        on_event=events.append,
        on_picture=shown.append,
        on_sound=lambda sound: heard.append(int(np.abs(sound.samples).max())),
        sound=True,
        engine=engine,
        environment=worker_environment("webrtc"),
    )
    worker.start()
    try:
        worker.join(kit.target(server, engine=engine, publish_sound=True, return_sound=True))
        kit.pump.start(lambda picture, at: worker.publish(SourceFrame(picture, at)), kit.picture())
        assert kit.wait_for(lambda: len(shown) > 10)
        joined = [event for event in events if event.kind is LinkEventKind.JOINED]
        assert joined[0].reason == require_link("webrtc", engine)
    finally:
        kit.pump.stop()
        worker.stop(2.0)
    assert events[-1].kind is LinkEventKind.LEFT


@needs_libwebrtc
def test_the_best_engine_that_is_installed_is_taken_unless_one_is_named() -> None:
    assert engines.installed() == ["libwebrtc", "aiortc"]
    assert engines.installed("aiortc") == ["aiortc"]
    assert require_link("webrtc") == "wrtc 0.1.0"
    assert require_link("webrtc", "aiortc").startswith("aiortc ")


def test_a_named_engine_that_is_missing_is_no_reason_to_take_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "_is_installed", lambda name: name == "aiortc")
    assert engines.installed() == ["aiortc"]
    with pytest.raises(LibraryUnavailable, match=r"wrtc.*relayd\[libwebrtc\]"):
        engines.installed("libwebrtc")


def test_a_library_of_another_version_than_the_tested_one_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _name: object())
    monkeypatch.setattr(engines, "version", lambda _name: "0.2.0")
    assert engines.installed() == ["aiortc"]


def installed(*names: EngineName) -> Callable[[], list[EngineName]]:
    return lambda: list(names)


def test_two_workers_that_die_with_libwebrtc_are_followed_by_aiortc(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "installed", installed("libwebrtc", "aiortc"))
    choice = EngineChoice()
    choice.worker_died()
    assert choice.name == "auto"
    choice.worker_died()
    assert choice.name == "aiortc"
    choice.worker_died()
    assert capsys.readouterr().out.count("link.engine_fallback") == 1


@pytest.mark.parametrize(
    ("wanted", "usable"),
    [
        ("libwebrtc", ("libwebrtc",)),
        ("aiortc", ("aiortc",)),
        ("auto", ("aiortc",)),
        ("auto", ("libwebrtc",)),
    ],
)
def test_an_engine_without_an_alternative_is_kept(
    monkeypatch: pytest.MonkeyPatch, wanted: str, usable: tuple[EngineName, ...]
) -> None:
    monkeypatch.setattr(engines, "installed", installed(*usable))
    choice = EngineChoice(wanted)
    for _ in range(5):
        choice.worker_died()
    assert choice.name == wanted
