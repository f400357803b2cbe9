"""Access over TCP: the token, the cookie, other users, other sites, reverse proxies."""

import asyncio
import hmac
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from relayd.control import page
from relayd.control.access import Access, Token, cookie_name
from relayd.control.api import Pictures, build_app
from relayd.control.server import ControlServer
from relayd.logs import redact
from relayd.relay.metrics import Metrics
from tests.control.credentials import BEARER, TOKEN
from tests.support.proxy import proxied

PATHS = ["/", "/api/status", "/healthz", "/metrics", "/preview/output.jpg", "/nothing", "/api/page"]
AS_NOBODY = """
import encodings.idna, os, socket, sys, urllib.error, urllib.request
os.setgroups([]), os.setgid(65534), os.setuid(65534)
for url in sys.argv[2:]:
    try:
        print(urllib.request.urlopen(url).status)
    except urllib.error.HTTPError as fault:
        print(fault.code)
with socket.socket(socket.AF_UNIX) as caller:
    try:
        caller.connect(sys.argv[1])
    except OSError as fault:
        print(type(fault).__name__)
    else:
        print("connected")
"""
"""Fetches URLs and calls a unix socket as a user who may do neither."""

Serve = Callable[..., AbstractAsyncContextManager[ControlServer]]


@pytest.fixture
def serve(relay: Any, feed: Any, tmp_path: Path) -> Serve:
    """Return a function that starts a server with these fields of its Access."""

    @asynccontextmanager
    async def start(**fields: Any) -> AsyncIterator[ControlServer]:
        app = build_app(relay, Metrics(), Pictures(feed, feed), Access(TOKEN, **fields))
        server = ControlServer(app, tmp_path / "run" / "control.sock", ("127.0.0.1", 0))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()

    return start


@pytest.fixture
async def stranger(server: ControlServer) -> AsyncIterator[httpx.AsyncClient]:
    """A local client without a token."""
    async with httpx.AsyncClient(base_url=server.url or "", timeout=5, verify=False) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_without_the_token_nothing_is_served_and_the_answer_says_where_to_get_it(
    stranger: httpx.AsyncClient, path: str
) -> None:
    answer = await stranger.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "`relayd status`" in answer.json()["hint"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN.text}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": "relayd=wrong"},
        {"Cookie": f"relayd={TOKEN.text}"},
    ],
)
async def test_what_is_not_the_token_opens_nothing(
    stranger: httpx.AsyncClient, relay: Any, headers: dict[str, str]
) -> None:
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    assert (await stranger.get("/api/status", headers=raw)).status_code == 401
    assert (await stranger.post("/api/pause", headers=raw, json={})).status_code == 401
    assert relay.asked == []


async def test_a_browser_without_the_token_gets_a_small_page(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<code>relayd status</code>" in answer.text
    assert "refresh" not in answer.text


async def test_the_urls_token_becomes_a_strict_cookie_and_a_clean_url(
    stranger: httpx.AsyncClient, server: ControlServer
) -> None:
    entered = await stranger.get(server.page_url or "")
    assert (entered.status_code, entered.headers["location"]) == (303, "./")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "path" not in cookie.lower()  # the browser takes the folder that it opened
    assert TOKEN.text not in cookie
    assert entered.headers["referrer-policy"] == "no-referrer"
    assert (await stranger.get("/")).status_code == 200
    assert (await stranger.get("/preview/output.jpg")).status_code == 200


async def test_a_link_on_another_site_gets_in_as_well(
    stranger: httpx.AsyncClient, server: ControlServer
) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Accept": "text/html"}
    entered = await stranger.get(server.page_url or "", headers=headers)
    assert entered.status_code == 200
    assert 'http-equiv="refresh"' in entered.text
    assert TOKEN.text not in entered.text
    assert (await stranger.get("/", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 200


async def test_a_wrong_token_in_the_url_is_told_and_sets_no_cookie(
    stranger: httpx.AsyncClient,
) -> None:
    answer = await stranger.get("/?token=of-yesterday", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert "of an earlier start" in answer.text
    assert "set-cookie" not in answer.headers


async def test_relays_on_two_ports_of_a_host_keep_their_cookies_apart() -> None:
    assert cookie_name("127.0.0.1:8642") != cookie_name("127.0.0.1:8643")
    assert cookie_name("relay.lan") == cookie_name("[") == "relayd"


async def test_a_cookie_of_a_shorter_path_does_not_hide_ours(
    stranger: httpx.AsyncClient, server: ControlServer
) -> None:
    assert server.address
    name = f"relayd-{server.address[1]}"
    both = f"{name}={TOKEN.cookie}; {name}=of-another-relay"
    assert (await stranger.get("/api/status", headers={"Cookie": both})).status_code == 200


async def test_each_start_has_a_token_of_its_own_which_no_log_shows() -> None:
    one, other = Token.random(), Token.random()
    assert one.text != other.text
    assert len(one.text) >= 22  # 128 bits in base64
    assert one.text not in redact(f"http://127.0.0.1/?token={one.text}")
    assert one.text not in repr(one)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def equal(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", equal)
    assert TOKEN.accepts("x")
    assert TOKEN.accepts_cookie("y")
    assert compared == [(b"x", TOKEN.text.encode()), (b"y", TOKEN.cookie.encode())]


async def test_a_server_whose_token_nobody_set_has_one(relay: Any) -> None:
    server = ControlServer(build_app(relay, Metrics(), Pictures()), None, ("127.0.0.1", 0))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.url or "") as client:
            assert (await client.get("/api/status")).status_code == 401
            assert (await client.get(server.page_url or "")).status_code == 303
    finally:
        await server.stop()


async def test_what_is_public_needs_no_token_and_nothing_else_is_opened(
    serve: Serve, relay: Any
) -> None:
    async with (
        serve(public=frozenset({"healthz", "metrics"})) as server,
        httpx.AsyncClient(base_url=server.url or "") as client,
    ):
        seen = {path: (await client.get(path)).status_code for path in PATHS}
        assert {path for path, code in seen.items() if code == 200} == {"/healthz", "/metrics"}
        assert set(seen.values()) == {200, 401}
        assert (await client.post("/healthz")).status_code == 401


async def test_only_the_unix_socket_returns_the_pages_url(
    client: httpx.AsyncClient, server: ControlServer
) -> None:
    assert (await client.get("/api/page")).status_code == 404
    transport = httpx.AsyncHTTPTransport(uds=str(server._unix_path))
    async with httpx.AsyncClient(transport=transport) as owner:
        answer = (await owner.get("http://relay/api/page")).json()
    assert answer == {"url": server.page_url}
    assert TOKEN.text in answer["url"]


@pytest.mark.parametrize("path", ["/api/status", "/metrics", "/", "/healthz"])
async def test_no_answer_holds_the_token(client: httpx.AsyncClient, path: str) -> None:
    assert TOKEN.text not in (await client.get(path)).text


# Other sites


@pytest.fixture
async def browser(stranger: httpx.AsyncClient, server: ControlServer) -> httpx.AsyncClient:
    """A client that has the cookie, and adds it for any page."""
    await stranger.get(server.page_url or "")
    return stranger


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("body", [b"", b"a=b"])
async def test_a_post_that_a_form_elsewhere_could_send_is_refused(
    browser: httpx.AsyncClient, relay: Any, kind: str | None, origin: str | None, body: bytes
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    headers |= {"Origin": origin} if origin else {}
    answer = await browser.post("/api/pause", headers=headers, content=body)
    assert answer.status_code == 403
    assert relay.asked == []


async def test_our_own_pages_buttons_work_with_and_without_a_body(
    browser: httpx.AsyncClient, server: ControlServer, relay: Any
) -> None:
    own = {"Origin": (server.url or "").rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert (await browser.post("/api/pause", headers=own)).status_code == 200
    assert (await browser.post("/api/resume", headers=own, json={})).status_code == 200
    assert relay.asked == [("pause",), ("resume",)]


# Reverse proxies


async def test_an_allowed_name_is_served_and_others_are_not(serve: Serve) -> None:
    async with (
        serve(allowed_hosts=("relay.lan", "cam.example:8443")) as server,
        httpx.AsyncClient(base_url=server.url or "", headers=BEARER) as client,
    ):
        for host in ("relay.lan", "RELAY.lan:80", "cam.example", "cam.example:8443"):
            assert (await client.get("/api/status", headers={"Host": host})).status_code == 200
        answer = await client.get("/api/status", headers={"Host": "evil.relay.lan"})
        assert answer.status_code == 421
        assert "[control] allowed_hosts" in answer.json()["hint"]


@pytest.mark.parametrize("host", ["relay.lan", "127.0.0.1:8642"])
async def test_a_post_through_a_proxy_is_taken_from_an_allowed_origin_alone(
    serve: Serve, relay: Any, host: str
) -> None:
    async with (
        serve(allowed_hosts=("relay.lan",)) as server,
        httpx.AsyncClient(base_url=server.url or "") as client,
    ):
        cookie = f"{cookie_name(host)}={TOKEN.cookie}"
        seen = {
            origin: (
                await client.post(
                    "/api/pause", headers={"Host": host, "Origin": origin, "Cookie": cookie}
                )
            ).status_code
            for origin in ("https://relay.lan", "https://relay.lan:99", "https://evil.example")
        }
    assert list(seen.values()) == [200, 403, 403]
    assert relay.asked == [("pause",)]


@pytest.mark.parametrize("keep_host", [True, False])
async def test_below_a_sub_path_of_a_proxy_all_works(
    serve: Serve, relay: Any, *, keep_host: bool
) -> None:
    async with serve(allowed_hosts=("relay.lan",)) as server:
        assert server.address
        async with (
            proxied(server.address, "/relay", keep_host=keep_host) as proxy,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{proxy.port}", timeout=5) as client,
        ):
            names = {"Host": "relay.lan", "Origin": "https://relay.lan"}
            entered = await client.get(f"/relay/?token={TOKEN.text}", headers={"Host": "relay.lan"})
            assert str(entered.url.join(entered.headers["location"])).endswith("/relay/")
            cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
            shown = await client.get("/relay/", headers=names | cookie)
            assert shown.status_code == 200
            status = await client.get("/relay/api/status", headers=names | cookie)
            assert status.json()["name"] == "studio"
            picture = await client.get("/relay/preview/output.jpg", headers=names | cookie)
            assert picture.content.startswith(b"\xff\xd8")
            paused = await client.post("/relay/api/pause", headers=names | cookie)
            assert paused.status_code == 200
    assert relay.asked == [("pause",)]


def test_the_page_names_no_absolute_path() -> None:
    text = page.html(has_source=True)
    assert not re.findall(r"""(?:src|href)=["']/|["'`]/(?:api|preview|metrics)""", text)


# Another user of this machine


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be tried by root alone")
async def test_another_user_gets_no_page_no_picture_no_api_and_no_socket(
    relay: Any, feed: Any
) -> None:
    app = build_app(relay, Metrics(), Pictures(feed, feed))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "control.sock"
        path.parent.chmod(0o755)  # the socket's own mode must do
        server = ControlServer(app, path, ("127.0.0.1", 0))
        await server.start()
        base = (server.url or "").rstrip("/")
        urls = [base + one for one in (*PATHS, "/preview/source.jpg", "/preview/source.mjpeg")]
        try:
            stranger = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", AS_NOBODY, str(path), *urls),
                stdout=subprocess.PIPE,
            )
            output, _ = await asyncio.wait_for(stranger.communicate(), 20)
        finally:
            await server.stop()
    assert output.decode().split() == [*["401"] * len(urls), "PermissionError"]
    assert relay.asked == []
