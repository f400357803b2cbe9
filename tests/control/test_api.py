import json
from typing import Any

import httpx
import pytest

from relayd import errors
from relayd.control.access import Access
from relayd.control.api import Pictures, build_app
from relayd.control.server import ControlServer
from relayd.media.delay import Spread
from relayd.relay.metrics import Metrics
from relayd.relay.status import OUTPUT_PENDING, RelayState
from tests.control.credentials import BEARER, TOKEN

JSON = {"Content-Type": "application/json"}


async def test_status_has_every_field_with_the_state_by_name_and_as_text(
    client: httpx.AsyncClient, relay: Any
) -> None:
    relay.change(state=RelayState.QUEUED, reason="3 ahead", longest_gap=float("inf"))
    answer = (await client.get("/api/status")).json()
    assert answer["state"] == "queued"
    assert answer["state_words"] == "Waiting in the service's queue"
    assert answer["reason"] == "3 ahead"
    assert answer["delay"] == {"p50": 0.31, "p95": 0.42, "count": 100}
    assert answer["frames"] == {"source": 30, "shown": 20}
    assert answer["longest_gap"] is None  # JSON has no infinity


async def test_lip_sync_is_in_the_status_where_something_measures_it(
    relay: Any, client: httpx.AsyncClient
) -> None:
    assert "lip_sync" not in (await client.get("/api/status")).json()
    app = build_app(
        relay, Metrics(), Pictures(), Access(TOKEN), lip_sync=lambda: Spread(-0.01, 0.03, 7)
    )
    over_tcp = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=over_tcp, base_url="http://localhost", headers=BEARER
    ) as measuring:
        answer = await measuring.get("/api/status")
    assert answer.json()["lip_sync"] == {"p50": -0.01, "p95": 0.03, "count": 7}


async def test_health_is_200_while_frames_flow_and_503_with_the_reason_otherwise(
    client: httpx.AsyncClient, relay: Any
) -> None:
    good = await client.get("/healthz")
    assert (good.status_code, good.text) == (200, "Live\n")
    relay.change(healthy=False, state=RelayState.BACKOFF, reason="the service does not answer")
    bad = await client.get("/healthz")
    assert bad.status_code == 503
    assert bad.text == "Will try again shortly: the service does not answer\n"


async def test_healthz_names_each_lost_output(relay: Any, client: httpx.AsyncClient) -> None:
    outputs = {"/dev/video10": "ok", "rtmp://h/live/***": "Connection refused"}
    relay.change(healthy=False, outputs=outputs)
    bad = await client.get("/healthz")
    assert bad.status_code == 503
    assert bad.text == "Live\noutput rtmp://h/live/… is lost: Connection refused\n"


async def test_no_secret_leaves_by_reason_or_error(client: httpx.AsyncClient, relay: Any) -> None:
    relay.change(reason="cannot open rtsp://me:hunter22@camera/", healthy=False)
    relay.failure = errors.ServerFault("Bearer abcdef123456 was refused")
    answers = [
        await client.get("/healthz"),
        await client.get("/api/status"),
        await client.post("/api/pause", headers=JSON),
    ]
    for answer in answers:
        assert "hunter22" not in answer.text
        assert "abcdef123456" not in answer.text


async def test_the_sound_is_muted_and_unmuted(client: httpx.AsyncClient, relay: Any) -> None:
    assert (await client.get("/api/status")).json()["sound"] is None
    muted = (await client.post("/api/mute", headers=JSON)).json()["sound"]
    assert (muted["muted"], muted["silent_for"]) == (True, ["muted"])
    unmuted = (await client.post("/api/unmute", json={})).json()["sound"]
    assert (unmuted["muted"], unmuted["silent_for"]) == (False, [])
    assert relay.asked == [("mute",), ("unmute",)]
    relay.failure = errors.UsageError("this relay has no sound", hint="add [sound]")
    refused = await client.post("/api/mute", headers=JSON)
    assert (refused.status_code, refused.json()["hint"]) == (400, "add [sound]")


async def test_a_face_is_handed_to_the_relay(client: httpx.AsyncClient, relay: Any) -> None:
    answer = await client.post("/api/face", json={"image": "https://x/f.png", "landmarks": "1,2"})
    assert answer.status_code == 200
    assert answer.json()["state"] == "live"
    await client.post("/api/face", json={"image": "https://x/g.png"})
    assert relay.asked == [("face", "https://x/f.png", "1,2"), ("face", "https://x/g.png", "")]


async def test_pause_resume_and_retry_reach_the_relay_and_answer_with_the_status_after(
    client: httpx.AsyncClient, relay: Any
) -> None:
    assert (await client.post("/api/pause", headers=JSON)).json()["paused"] is True
    assert (await client.post("/api/resume", json={})).json()["paused"] is False
    assert (await client.post("/api/source/retry", headers=JSON)).status_code == 200
    assert relay.asked == [("pause",), ("resume",), ("retry",)]


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        (b"{", 400, "JSON"),
        (b"[" * 9000, 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b'{"\\ud800": 1}', 400, "JSON"),
        (b'{"image": "https://\\ud800"}', 400, "JSON"),
        (b"[]", 400, "object"),
        (b"{}", 400, "image"),
        (b'{"image": " "}', 400, "image"),
        (b'{"image": 7}', 400, "image"),
        (b'{"image": "https://x", "landmarks": null}', 400, "landmarks"),
        (b'{"image": "https://x", "landmark": ""}', 400, "landmark:"),
        (json.dumps({"image": "x" * 5000}).encode(), 400, "image"),
        (b" " * 20000, 413, "larger"),
    ],
)
async def test_a_bad_body_is_refused_with_the_field_named(
    client: httpx.AsyncClient, relay: Any, body: bytes, status: int, names: str
) -> None:
    answer = await client.post("/api/face", content=body, headers=JSON)
    assert answer.status_code == status
    assert names in answer.json()["error"]
    assert relay.asked == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.ConfigError(["face.image: no URL"]), 400),
        (errors.CredentialsRefused("x"), 403),
        (errors.FaceRejected("x"), 422),
        (errors.SessionUnknown("x"), 409),
        (errors.Throttled("x"), 429),
        (errors.ServiceUnreachable("x"), 502),
        (errors.SourceUnreachable("x"), 503),
        (errors.WorkerDied("x"), 503),
    ],
)
async def test_an_error_of_the_relay_is_reported_with_its_hint(
    client: httpx.AsyncClient, relay: Any, failure: errors.RelaydError, status: int
) -> None:
    failure.hint = "do this"
    relay.failure = failure
    answer = await client.post("/api/source/retry", headers=JSON)
    assert answer.status_code == status
    assert answer.json() == {
        "error": failure.message,
        "hint": "do this",
        "mend": "do this",
    }


async def test_unknown_paths_and_methods_are_json_errors(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nothing")).json()["error"] == "Not Found"
    wrong = await client.get("/api/pause")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "["])
async def test_a_foreign_host_name_is_refused_against_dns_rebinding(
    client: httpx.AsyncClient, host: str
) -> None:
    for path in ("/", "/api/status", "/preview/output.jpg"):
        answer = await client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "error" in answer.json()


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1", "[::1]:8642"])
async def test_our_own_names_are_served(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/api/status", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_post_from_a_foreign_page_is_refused(
    client: httpx.AsyncClient, relay: Any, headers: dict[str, str]
) -> None:
    answer = await client.post("/api/pause", headers={**JSON, **headers})
    assert answer.status_code == 403
    assert relay.asked == []


async def test_a_post_of_our_own_page_is_served(
    client: httpx.AsyncClient, server: ControlServer, relay: Any
) -> None:
    assert server.url
    own = {**JSON, "Origin": server.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert (await client.post("/api/pause", headers=own)).status_code == 200
    assert relay.asked == [("pause",)]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_no_json_is_refused_with_what_to_send(
    client: httpx.AsyncClient, relay: Any, kind: str | None
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await client.post("/api/pause", headers=headers, content=b"a=b")
    assert answer.status_code == 415
    assert "or no body" in answer.json()["hint"]
    assert relay.asked == []


@pytest.mark.parametrize("kind", [None, "application/json", "application/x-www-form-urlencoded"])
async def test_a_button_needs_no_body(
    client: httpx.AsyncClient, relay: Any, kind: str | None
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert (await client.post("/api/pause", headers=headers)).status_code == 200
    assert relay.asked == [("pause",)]


async def test_the_unix_socket_serves_any_host_name_without_a_token(server: ControlServer) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(server._unix_path))
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.get("http://relayd/api/status")).status_code == 200
        assert (await client.post("http://relayd/api/pause")).status_code == 200
        refused = await client.post("http://relayd/api/pause", content=b"{}")
        assert refused.status_code == 415


async def test_answers_may_not_be_embedded_framed_sniffed_or_kept(
    client: httpx.AsyncClient,
) -> None:
    for path in ("/", "/api/status", "/preview/output.jpg", "/nothing"):
        headers = (await client.get(path)).headers
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


async def test_metrics_are_served_as_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'relayd_state{state="live"} 1.0' in answer.text


async def test_a_relay_without_measurements_has_a_status(
    client: httpx.AsyncClient, relay: Any
) -> None:
    relay.change(delay=Spread(), session_id=None)
    assert (await client.get("/api/status")).json()["delay"]["p50"] is None


async def test_names_that_are_not_utf8_are_returned_as_escapes(
    client: httpx.AsyncClient, relay: Any
) -> None:
    relay.change(
        name="\udcff", source="/\udcff.mp4", outputs={"/\udcff.mkv": "away"}, healthy=False
    )
    answer = await client.get("/api/status")
    assert answer.status_code == 200
    assert answer.json()["outputs"] == {"/\udcff.mkv": "away"}
    assert (await client.get("/metrics")).status_code == 200
    assert "output /\\udcff.mkv is lost: away" in (await client.get("/healthz")).text


async def test_healthz_names_an_output_that_is_not_connected_yet(
    relay: Any, client: httpx.AsyncClient
) -> None:
    relay.change(healthy=False, outputs={"rtmp://h/…": OUTPUT_PENDING})
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (
        503,
        "Live\noutput rtmp://h/… is not connected yet\n",
    )
