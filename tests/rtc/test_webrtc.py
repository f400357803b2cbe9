import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import aioice.ice
import pytest
from starlette.requests import Request
from starlette.responses import Response

from relayd.errors import JoinFailed, JoinRefused
from relayd.rtc.link import LinkEventKind
from relayd.rtc.webrtc import link as webrtc_link
from relayd.rtc.webrtc.link import WebRtcLink
from tests.rtc.unplugged import unplug

if TYPE_CHECKING:
    from tests.rtc.conftest import EchoServer, EventCollector, Kit, Links

ENCODED = "/channel%20one/"


def answer(
    status: int, headers: dict[str, str] | None = None, body: str = ""
) -> Callable[[Request], Response]:
    return lambda _request: Response(body, status, headers)


def times(
    count: int, then: Callable[[Request], Response | None]
) -> Callable[[Request], Response | None]:
    """Answer the first `count` requests with `then`, the others as the server would."""
    left = [count]

    def decide(request: Request) -> Response | None:
        left[0] -= 1
        return then(request) if left[0] >= 0 else None

    return decide


def test_pictures_go_out_by_whip_come_back_by_whep_and_leave_deletes_both(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    link = links(kit.target(server), collector)
    collector.wait_for(LinkEventKind.JOINED)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert kit.wait_for(lambda: len(collector.pictures) > 5)
    assert kit.psnr(collector.pictures[-1][0], 255 - kit.picture()) > 30
    assert abs(collector.pictures[-1][1] - time.monotonic()) < 2
    kit.pump.stop()
    began = time.monotonic()
    link.leave(began + 3)
    assert time.monotonic() - began < 1.5
    assert collector.kinds() == [
        LinkEventKind.JOINED,
        LinkEventKind.PUBLISHING,
        LinkEventKind.FIRST_PICTURE,
        LinkEventKind.LEFT,
    ]
    assert len(server.deletes("/whip/")) == len(server.deletes("/whep/")) == 1
    assert {one.token for one in server.requests} == {kit.token}
    assert all(one.path.startswith("/channel one/") for one in server.requests)
    assert server.peers == {}


def test_figures_are_reported_regularly(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webrtc_link, "STATS_INTERVAL", 0.4)
    link = links(kit.target(server), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    seen = len(collector.events)
    assert kit.wait_for(
        lambda: any(event.stats and event.stats.received > 8 for event in collector.events[seen:])
    )
    stats = [event.stats for event in collector.events if event.stats][-1]
    assert stats.sent >= stats.received
    assert stats.publish_kbit > 0
    assert stats.play_kbit > 0


@pytest.mark.parametrize("status", [404, 409, 503])
def test_a_player_that_comes_before_the_swap_engine_tries_again(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit", status: int
) -> None:
    server.whep = times(2, answer(status))
    link = links(kit.target(server), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    assert len(server.posts("whep")) == 3
    assert LinkEventKind.DEGRADED not in collector.kinds()


def test_an_engine_that_never_comes_is_given_up_at_the_first_frame_timeout(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.whep = answer(404)
    began = time.monotonic()
    links(kit.target(server, first_frame_timeout=1.5), collector)
    lost = collector.wait_for(LinkEventKind.LOST)
    assert isinstance(lost.error, JoinFailed)
    assert "404" in str(lost.error)
    assert 1.4 < time.monotonic() - began < 4
    assert len(server.deletes("/whip/")) == 1


def test_retry_after_is_respected(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.whip = times(1, answer(503, {"Retry-After": "1"}))
    began = time.monotonic()
    links(kit.target(server), collector)
    collector.wait_for(LinkEventKind.JOINED)
    assert time.monotonic() - began > 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 415, 422])
def test_a_refused_offer_ends_the_link_and_says_why_without_the_token(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit", status: int
) -> None:
    server.whip = answer(status)
    links(kit.target(server), collector)
    refused = collector.wait_for(LinkEventKind.REFUSED)
    assert isinstance(refused.error, JoinRefused)
    assert str(status) in str(refused.error)
    assert kit.token not in str(refused.error)
    assert len(server.posts("whip")) == 1


@pytest.mark.parametrize("status", [401, 404, 418])
def test_a_password_in_the_url_is_in_no_reason(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit", status: int
) -> None:
    """Reasons are drawn into the standby picture, which the whole call sees."""
    server.whip = answer(status)
    url = server.url.replace("://", "://user:open-sesame@") + "/{channel_id}/1/whip"
    links(kit.target(server, publish_url=url, first_frame_timeout=0.2), collector)
    assert kit.wait_for(
        lambda: {LinkEventKind.REFUSED, LinkEventKind.LOST} & set(collector.kinds())
    )
    assert str(status) in str(collector.events[-1].error)
    assert "open-sesame" not in str(collector.events[-1].error)


def test_a_location_of_another_origin_is_ignored(
    server: "EchoServer",
    other_server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
) -> None:
    server.locate = lambda path: {"Location": other_server.url + path}
    link = links(kit.target(server), collector)
    collector.wait_for(LinkEventKind.JOINED)
    link.leave(time.monotonic() + 3)
    assert other_server.requests == []


def test_a_server_without_a_location_is_used_all_the_same(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.locate = lambda _path: {}
    link = links(kit.target(server), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    link.leave(time.monotonic() + 3)
    assert server.deletes() == []


def test_an_absolute_location_of_the_same_origin_is_deleted(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.locate = lambda path: {"Location": server.url + path}
    link = links(kit.target(server), collector)
    collector.wait_for(LinkEventKind.JOINED)
    link.leave(time.monotonic() + 3)
    assert len(server.deletes("/whip/")) == 1


def test_a_redirect_is_followed_and_the_token_stays_with_its_origin(
    server: "EchoServer",
    other_server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
) -> None:
    server.whip = times(1, answer(307, {"Location": f"{ENCODED}elsewhere/whip"}))
    server.whep = answer(308, {"Location": f"{other_server.url}{ENCODED}2/whep"})
    links(kit.target(server), collector)
    collector.wait_for(LinkEventKind.JOINED)
    assert kit.wait_for(lambda: other_server.requests)
    assert [one.token for one in server.posts("whip")] == [kit.token, kit.token]
    assert server.posts("whip")[1].path == "/channel one/elsewhere/whip"
    assert other_server.requests[0].token == ""


def test_a_redirect_loop_ends(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.whip = lambda request: Response(None, 307, {"Location": str(request.url)})
    links(kit.target(server, first_frame_timeout=0.2), collector)
    assert "redirected" in str(collector.wait_for(LinkEventKind.LOST).error)


SDP = {"Content-Type": "application/sdp"}


@pytest.mark.parametrize(
    "garbled",
    [
        (SDP, ""),
        (SDP, "v=0\r\nm=video nonsense"),
        (SDP, "\0" * 1000),
        (SDP, "v=0\r\n" + "a=x\r\n" * 100_000),
        ({"Content-Type": "text/html"}, "<html>"),
    ],
    ids=["empty", "cut", "binary", "endless", "html"],
)
def test_a_garbled_answer_is_a_failure_with_a_message(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    garbled: tuple[dict[str, str], str],
) -> None:
    server.whip = answer(201, *garbled)
    links(kit.target(server, first_frame_timeout=0.2), collector)
    lost = collector.wait_for(LinkEventKind.LOST)
    assert isinstance(lost.error, JoinFailed)
    assert "Traceback" not in str(lost.error)
    assert len(str(lost.error)) < 400


def test_a_server_that_cuts_connections_is_tried_again_then_given_up(
    links: "Links", collector: "EventCollector", kit: "Kit", server: "EchoServer"
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls = []

        def cut() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                calls.append(connection.recv(10))
                connection.close()

        cutter = threading.Thread(target=cut)
        cutter.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/whip"
        links(kit.target(server, publish_url=url, first_frame_timeout=1.0), collector)
        assert isinstance(collector.wait_for(LinkEventKind.LOST).error, JoinFailed)
        listener.shutdown(socket.SHUT_RDWR)
        cutter.join()
    assert len(calls) > 1


def test_leaving_before_the_servers_answer_deletes_the_session_it_made(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.delay = 0.8
    link = links(kit.target(server), collector)
    assert kit.wait_for(lambda: len(server.requests) == 2)
    link.leave(time.monotonic() + 3)
    assert len(server.deletes("/whip/")) == len(server.deletes("/whep/")) == 1
    assert collector.kinds() == [LinkEventKind.LEFT]


def test_leaving_a_server_that_hangs_keeps_the_deadline(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    server.delay = 2.5
    link = links(kit.target(server), collector)
    assert kit.wait_for(lambda: len(server.requests) == 2)
    began = time.monotonic()
    link.leave(began + 0.7)
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize("kind", ["whip", "whep"])
def test_a_connection_that_the_server_drops_comes_back_by_itself(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit", kind: str
) -> None:
    link = links(kit.target(server), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    began = time.monotonic()
    server.run(lambda peer: peer.close(), kind)
    leg = "publish" if kind == "whip" else "play"
    assert collector.wait_for(LinkEventKind.DEGRADED).reason.startswith(leg)
    collector.wait_for(LinkEventKind.RECOVERED)
    assert time.monotonic() - began < 4
    pictures = len(collector.pictures)
    assert kit.wait_for(lambda: len(collector.pictures) > pictures + 3)
    assert len(server.posts(kind)) == 2
    assert len(server.deletes(f"/{kind}/")) == 1


def test_a_connection_that_dies_silently_is_noticed_and_comes_back(
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 1)  # test_peer.py has the true time
    link = links(kit.target(server), collector)
    kit.pump.start(link.publish, kit.picture())
    collector.wait_for(LinkEventKind.FIRST_PICTURE)
    began = time.monotonic()
    server.run(unplug, "whip")
    collector.wait_for(LinkEventKind.DEGRADED)
    assert time.monotonic() - began < 6
    collector.wait_for(LinkEventKind.RECOVERED)


def test_a_connection_that_does_not_come_back_is_lost_at_its_deadline(
    server: "EchoServer", links: "Links", collector: "EventCollector", kit: "Kit"
) -> None:
    links(kit.target(server, recovery_timeout=1.0), collector)
    collector.wait_for(LinkEventKind.JOINED)
    server.whip = answer(503)
    server.run(lambda peer: peer.close(), "whip")
    lost = collector.wait_for(LinkEventKind.LOST)
    assert lost.error is not None
    assert lost.error.retryable
    assert "503" in str(lost.error)
    assert collector.kinds()[-2:] == [LinkEventKind.DEGRADED, LinkEventKind.LOST]


def test_leave_may_come_before_or_without_a_join_or_after_the_end(
    server: "EchoServer", collector: "EventCollector", kit: "Kit"
) -> None:
    link = WebRtcLink(kit.target(server), collector.on_picture, collector.on_event)
    link.leave(time.monotonic() + 1)
    server.whip = answer(401)
    link.join()
    collector.wait_for(LinkEventKind.REFUSED)
    link.leave(time.monotonic() + 1)
    link.publish(kit.picture(), 1.0)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (201, {"content-type": "x" * 50_000}),
        (201, {"content-type": "application/sdp", "location": "http://else.where/" + "x" * 50_000}),
        (307, {"location": "/" + "x" * 50_000}),
        (307, {"location": "gopher://" + "x" * 50_000}),
        (429, {"retry-after": "9" * 50_000}),
    ],
)
def test_a_servers_long_text_is_quoted_in_part(  # noqa: PLR0917 - three are parameters
    server: "EchoServer",
    links: "Links",
    collector: "EventCollector",
    kit: "Kit",
    capfd: pytest.CaptureFixture[str],
    status: int,
    headers: dict[str, str],
) -> None:
    server.whip = answer(status, headers, "v=nonsense")
    links(kit.target(server, first_frame_timeout=0.5), collector)
    assert kit.wait_for(
        lambda: {LinkEventKind.LOST, LinkEventKind.REFUSED} & set(collector.kinds()), kit.timeout
    )
    assert len(str(collector.events[-1].error)) < 1000
    assert all(len(line) < 2000 for line in capfd.readouterr().err.splitlines())
