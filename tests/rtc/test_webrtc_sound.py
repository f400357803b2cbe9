"""Sound of a WHIP and WHEP link: only where asked for, and never at the cost of the pictures."""

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response

from relayd.errors import JoinRefused
from relayd.media.frames import SourceFrame
from relayd.rtc.kinds import worker_environment
from relayd.rtc.link import LinkEvent, LinkEventKind
from relayd.rtc.process import RtcWorker
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, OwnSound, ReturnedSound

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, EventCollector, Kit, Links

TONE = (np.sin(2 * np.pi * 1000 * np.arange(BLOCK) / RATE) * 8000).astype(np.int16)


def is_heard(collector: "EventCollector") -> bool:
    return any(np.abs(samples).max() > 4000 for samples, _ in collector.blocks[-100:])


def test_sound_goes_out_and_comes_back_beside_the_pictures(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.sound = True
    link = links(kit.target(server, publish_sound=True, return_sound=True), collector)
    kit.pump.start(link.publish, kit.picture())
    kit.pump.speak(link.publish_sound, TONE)
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert kit.wait_for(lambda: is_heard(collector))
    samples, at = collector.blocks[-1]
    assert samples.shape == (BLOCK,)
    assert abs(at - time.monotonic()) < 2


@pytest.mark.parametrize(("publish", "returned"), [(False, False), (True, False), (False, True)])
def test_only_what_is_asked_for_is_offered(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    *,
    publish: bool,
    returned: bool,
) -> None:
    server.sound = True
    link = links(kit.target(server, publish_sound=publish, return_sound=returned), collector)
    kit.pump.start(link.publish, kit.picture())
    kit.pump.speak(link.publish_sound, TONE)
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    offered = {kind: "m=audio" in server.offers[kind] for kind in ("whip", "whep")}
    assert offered == {"whip": publish, "whep": returned}
    assert collector.blocks == []


def refuses_sound(server: "EchoServer", kind: str, status: int) -> None:
    def refuse(_request: Request) -> Response | None:
        return Response(None, status) if "m=audio" in server.offers[kind] else None

    setattr(server, kind, refuse)


@pytest.mark.parametrize("kind", ["whip", "whep"])
@pytest.mark.parametrize("status", [400, 406, 422])
def test_a_server_that_refuses_an_offer_with_sound_gets_one_without(  # noqa: PLR0917 - two are parameters
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    kind: str,
    status: int,
) -> None:
    refuses_sound(server, kind, status)
    link = links(kit.target(server, publish_sound=True, return_sound=True), collector)
    kit.pump.start(link.publish, kit.picture())
    kit.pump.speak(link.publish_sound, TONE)
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert len(server.posts(kind)) == 2
    assert LinkEventKind.DEGRADED not in collector.kinds()


def test_a_server_without_sound_gets_the_pictures(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    link = links(kit.target(server, publish_sound=True, return_sound=True), collector)
    kit.pump.start(link.publish, kit.picture())
    kit.pump.speak(link.publish_sound, TONE)
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert collector.blocks == []
    assert len(server.posts("whip")) == len(server.posts("whep")) == 1


def test_a_refused_token_is_refused_with_sound_too(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.whip = lambda _request: Response(None, 401)
    links(kit.target(server, publish_sound=True), collector)
    refused = collector.wait_for(LinkEventKind.REFUSED)
    assert isinstance(refused.error, JoinRefused)
    assert "401" in str(refused.error)


def test_sound_comes_back_with_a_connection_that_was_dropped(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.sound = True
    link = links(kit.target(server, publish_sound=True, return_sound=True), collector)
    kit.pump.start(link.publish, kit.picture())
    kit.pump.speak(link.publish_sound, TONE)
    assert kit.wait_for(lambda: is_heard(collector))
    server.run(lambda peer: peer.close(), "whip")
    collector.wait_for(LinkEventKind.RECOVERED)
    collector.blocks.clear()
    assert kit.wait_for(lambda: is_heard(collector))


def test_sound_goes_through_a_worker_process_both_ways(server: "EchoServer", kit: "Kit") -> None:
    server.sound = True
    events: list[LinkEvent] = []
    heard: list[ReturnedSound] = []
    worker = RtcWorker(
        kit.geometry,
        on_event=events.append,
        on_picture=lambda _frame: None,
        on_sound=heard.append,
        sound=True,
        environment=worker_environment("webrtc"),
    )
    worker.start()
    try:
        worker.join(kit.target(server, publish_sound=True, return_sound=True))
        kit.pump.start(lambda picture, at: worker.publish(SourceFrame(picture, at)), kit.picture())
        kit.pump.speak(lambda samples, at: worker.publish_sound(OwnSound(samples, at)), TONE)
        assert kit.wait_for(lambda: any(np.abs(one.samples).max() > 4000 for one in heard))
        count = len(heard)
        assert kit.wait_for(lambda: len(heard) > count + 50)
        steps = np.diff([one.at for one in heard[-50:]])
        assert np.median(steps) == pytest.approx(BLOCK_SECONDS, abs=1e-6)
    finally:
        kit.pump.stop()
        worker.stop(2.0)
