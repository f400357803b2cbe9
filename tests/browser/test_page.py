"""The page in a real Chromium, driven over W3C WebDriver against a real server."""

import asyncio
import importlib.util
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from relayd.control.access import Access, Token
from relayd.control.api import Pictures, build_app
from relayd.control.server import ControlServer
from relayd.media.delay import Spread
from relayd.media.frames import Geometry, SourceFrame, SwappedFrame, black
from relayd.media.slots import LatestSlot
from relayd.output.preview import Preview, SourcePreview
from relayd.relay.metrics import Metrics
from relayd.relay.status import RelayState
from tests.control.conftest import SOUND
from tests.control.credentials import TOKEN
from tests.support.proxy import proxied

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromium-driver is not installed"),
]

GEOMETRY = Geometry(320, 240)
SUM_OF_PIXELS = """
const picture = document.getElementById(arguments[0]), canvas = document.createElement("canvas");
if (!picture.naturalWidth) return null;
canvas.width = 64; canvas.height = 48;
const pen = canvas.getContext("2d");
pen.drawImage(picture, 0, 0, 64, 48);
return pen.getImageData(0, 0, 64, 48).data.reduce((sum, value, at) => sum + value * (at % 97), 0);
"""
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
]


def fake_relay() -> Any:
    """The relay that the tests of the control room use."""
    path = Path(__file__).parents[1] / "control" / "conftest.py"
    spec = importlib.util.spec_from_file_location("control_fakes", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeRelay()


class Browser:
    """One WebDriver session (W3C WebDriver, sections 8 to 13)."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._session = ""

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._client.request(method, path, json=body)
        value = answer.json()["value"]
        assert answer.is_success, value
        return value

    async def open(self, profile: str, *flags: str) -> None:
        options = {"args": [*FLAGS, *flags, f"--user-data-dir={profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = await self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    async def close(self) -> None:
        if self._session:
            await self._ask("DELETE", self._session)

    async def go(self, url: str) -> None:
        # The pictures never end, so the page never counts as loaded.
        await self._ask("POST", f"{self._session}/timeouts", {"pageLoad": 3000})
        await self._ask("POST", f"{self._session}/url", {"url": url})

    async def run(self, script: str, *arguments: Any) -> Any:
        body = {"script": script, "args": list(arguments)}
        return await self._ask("POST", f"{self._session}/execute/sync", body)

    async def run_async(self, script: str, *arguments: Any) -> Any:
        """Run a script that hands its result to a function, its last argument."""
        body = {"script": script, "args": list(arguments)}
        return await self._ask("POST", f"{self._session}/execute/async", body)

    async def narrow_to(self, width: int) -> None:
        """Make the page as narrow as a phone's; a window of Chromium itself cannot be as narrow."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        body = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
        await self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    async def text(self, element: str) -> str:
        return str(
            await self.run("return document.getElementById(arguments[0]).innerText", element)
        )

    async def press(self, key: str) -> None:
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        body = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        await self._ask("POST", f"{self._session}/actions", body)

    async def double_click(self, element: str) -> None:
        """Click twice on an element, as a person does."""
        script = "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
        script += "return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)];"
        x, y = await self.run(script, element)
        click = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        there = {"type": "pointerMove", "duration": 0, "x": x, "y": y}
        pause = {"type": "pause", "duration": 150}
        body = {"type": "pointer", "id": "mouse", "actions": [there, *click, pause, *click]}
        await self._ask("POST", f"{self._session}/actions", {"actions": [body]})

    async def complaints(self) -> list[str]:
        """What the browser's console says of errors."""
        entries = await self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@asynccontextmanager
async def running_browser(*flags: str) -> AsyncIterator[Browser]:
    """A browser of our own, with more flags than usual."""
    driver = await asyncio.create_subprocess_exec(
        "chromedriver", "--port=0", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert driver.stdout
    profile = tempfile.mkdtemp(prefix="relayd-browser-")
    try:
        port = ""
        while not port:
            line = (await driver.stdout.readline()).decode()
            assert line, "chromedriver ended"
            port = "".join(re.findall(r"started successfully on port (\d+)", line))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            browser = Browser(client)
            try:
                await browser.open(profile, *flags)
                yield browser
            finally:
                await browser.close()
    finally:
        driver.terminate()
        await driver.wait()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


class Stage:
    """A server with moving pictures, and the relay behind it."""

    def __init__(self, *, with_source: bool) -> None:
        self.relay = fake_relay()
        self.output, self.source = Preview(GEOMETRY), LatestSlot[SourceFrame]()
        source = SourcePreview(self.source, GEOMETRY) if with_source else None
        self.pictures = Pictures(output=self.output, source=source)
        self.server = self.new_server(("127.0.0.1", 0))

    def new_server(self, address: tuple[str, int], token: Token = TOKEN) -> ControlServer:
        """Make a server, as after a restart of the relay."""
        measured = (lambda: Spread(-0.012, 0.03, 5)) if self.pictures.source else None
        app = build_app(self.relay, Metrics(), self.pictures, Access(token), lip_sync=measured)
        return ControlServer(app, tcp=address)

    async def play(self) -> None:
        step = 0
        while True:
            step += 5
            picture = black(GEOMETRY)
            picture[60:180, step % 260 : step % 260 + 60] = 200
            now = time.monotonic()
            self.source.put(SourceFrame(picture, now))
            self.output.show(SwappedFrame(picture[:, ::-1].copy(), now))
            await asyncio.sleep(0.05)


@asynccontextmanager
async def playing(*, with_source: bool) -> AsyncIterator[Stage]:
    stage = Stage(with_source=with_source)
    await stage.server.start()
    playing = asyncio.create_task(stage.play())
    try:
        yield stage
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await stage.server.stop()


async def eventually(told: Callable[[], Awaitable[Any]], wanted: Any, seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while (last := await told()) != wanted:
        assert time.monotonic() < deadline, f"{last!r} never became {wanted!r}"
        await asyncio.sleep(0.1)


async def moves(browser: Browser, picture: str) -> bool:
    """Whether an image shows at least four different pictures within some seconds."""
    sums = set()
    for _ in range(40):
        found = await browser.run(SUM_OF_PIXELS, picture)
        sums |= {found} - {None}
        if len(sums) >= 4:
            return True
        await asyncio.sleep(0.1)
    return False


async def test_both_pictures_move_and_the_state_follows_the_relay(browser: Browser) -> None:
    async with playing(with_source=True) as on:
        await browser.go(on.server.page_url or "")
        assert await moves(browser, "output-picture")
        assert await moves(browser, "source-picture")
        await eventually(lambda: browser.text("state"), "Live")
        assert (await browser.text("delay-p50")) == "310 ms"
        assert (await browser.text("fps")) == "20.0 fps"
        assert (await browser.text("lip-sync")) == "-12 ms"
        on.relay.change(state=RelayState.QUEUED, reason="<b>3</b> ahead")
        await eventually(lambda: browser.text("state"), "Waiting in the service's queue")
        assert (await browser.text("reason")) == "<b>3</b> ahead"
        assert await browser.complaints() == []


async def test_without_a_source_preview_the_page_asks_for_none(browser: Browser) -> None:
    async with playing(with_source=False) as on:
        await browser.go(on.server.page_url or "")
        assert await moves(browser, "output-picture")
        hidden = "return document.getElementById('source-picture').getClientRects().length"
        assert await browser.run(hidden) == 0
        assert await browser.run(hidden.replace("source-picture", "lip-sync")) == 0
        assert await browser.complaints() == []


async def test_pause_and_resume_work_by_keyboard_alone(browser: Browser) -> None:
    async with playing(with_source=False) as on:
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("state"), "Live")
        await browser.press("\ue004")  # Tab
        assert await browser.run("return document.activeElement.id") == "pause"
        await browser.press("\ue007")  # Enter
        await eventually(lambda: browser.text("pause"), "Resume")
        assert on.relay.asked == [("pause",)]
        assert (await browser.text("state")) == "Standing by"
        assert await browser.run("return document.activeElement.id") == "pause"
        await browser.press("\ue00d")  # Space
        await eventually(lambda: browser.text("pause"), "Pause")
        assert on.relay.asked == [("pause",), ("resume",)]


async def test_the_sound_is_muted_by_a_button_that_is_there_only_with_sound(
    browser: Browser,
) -> None:
    async with playing(with_source=False) as on:
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("state"), "Live")
        assert await browser.run("return document.getElementById('mute').hidden")
        on.relay.change(sound=SOUND)
        await eventually(
            lambda: browser.text("sound"),
            "450 ms after capture; relayd microphone read by 1; other read by an unknown number",
        )
        assert await browser.run("return document.getElementById('level').value") == -20
        await browser.run("document.getElementById('mute').click()")
        await eventually(lambda: browser.text("mute"), "Unmute")
        assert (await browser.text("sound")).startswith("muted; ")
        await browser.run("document.getElementById('mute').click()")
        await eventually(lambda: browser.text("mute"), "Mute")
        assert on.relay.asked == [("mute",), ("unmute",)]


async def test_a_double_click_mutes_and_does_not_unmute_again(browser: Browser) -> None:
    async with playing(with_source=False) as on:
        on.relay.change(sound=SOUND)
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("mute"), "Mute")
        await browser.double_click("mute")
        await eventually(lambda: browser.text("mute"), "Unmute")
        await browser.double_click("pause")
        await eventually(lambda: browser.text("pause"), "Resume")
        assert on.relay.asked == [("mute",), ("pause",)]
        await browser.run("document.getElementById('mute').click()")
        await eventually(lambda: browser.text("mute"), "Mute")


async def test_the_page_says_so_when_relayd_is_gone_and_comes_back_with_it(
    browser: Browser,
) -> None:
    async with playing(with_source=True) as on:
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("state"), "Live")
        address = on.server.address
        await on.server.stop()
        await eventually(lambda: browser.text("state"), "relayd does not answer")
        assert await browser.run("return document.getElementById('pause').disabled")
        assert address
        on.server = on.new_server(address)
        await on.server.start()
        await eventually(lambda: browser.text("state"), "Live")
        assert await moves(browser, "output-picture")


async def test_the_url_with_the_token_leaves_no_token_in_the_address_or_the_history(
    browser: Browser,
) -> None:
    async with playing(with_source=False) as on:
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("state"), "Live")
        assert await browser.run("return location.href") == on.server.url
        assert await browser.run("return document.cookie") == ""
        assert await browser.run("return document.referrer") == ""
        await browser.go(on.server.url or "")
        await eventually(lambda: browser.text("state"), "Live")


async def test_a_browser_without_the_token_is_told_where_it_is(browser: Browser) -> None:
    async with playing(with_source=True) as on:
        await browser.go(on.server.url or "")
        body = "return document.body.innerText"
        assert "relayd status" in await browser.run(body)
        assert await browser.run("return document.images.length") == 0


async def test_a_page_whose_relay_has_another_token_since_says_where_it_is(
    browser: Browser,
) -> None:
    async with playing(with_source=False) as on:
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("state"), "Live")
        address = on.server.address
        await on.server.stop()
        assert address
        on.server = on.new_server(address, Token.random())
        await on.server.start()
        await eventually(lambda: browser.text("state"), "relayd asks for its token")
        assert "relayd status" in await browser.text("reason")


async def test_below_a_sub_path_of_a_reverse_proxy_pictures_move_and_the_button_works(
    browser: Browser,
) -> None:
    async with playing(with_source=True) as on:
        assert on.server.address
        async with proxied(on.server.address, "/studio") as proxy:
            await browser.go(f"http://localhost:{proxy.port}/studio/?token={TOKEN.text}")
            await eventually(lambda: browser.text("state"), "Live")
            assert await moves(browser, "output-picture")
            assert await moves(browser, "source-picture")
            await browser.press("\ue004")  # Tab
            await browser.press("\ue007")  # Enter
            await eventually(lambda: browser.text("pause"), "Resume")
            assert on.relay.asked == [("pause",)]
            paths = "return performance.getEntriesByType('resource').map((one) => one.name)"
            seen = await browser.run(paths)
            assert seen
            assert all("/studio/" in name for name in seen)


async def test_the_page_fits_a_narrow_phone(browser: Browser) -> None:
    async with playing(with_source=True) as on:
        on.relay.change(name="studioofeverybody")
        await browser.narrow_to(320)
        await browser.go(on.server.page_url or "")
        await eventually(lambda: browser.text("state"), "Live")
        overhang = (
            "return [...document.querySelectorAll('header *, main *')].filter((one) =>"
            " one.getBoundingClientRect().right > innerWidth - 13).map((one) => one.outerHTML)"
        )
        assert await browser.run(overhang) == []
