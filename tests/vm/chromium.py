"""A headless Chromium in the guest that watches the camera, and what its page tells."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.vm.guest import HERE, HOST, Failed, Guest

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
    " --use-fake-ui-for-media-stream --autoplay-policy=no-user-gesture-required --disable-sync"
    " --disable-background-networking --disable-component-update --disable-extensions"
    " --mute-audio"
    " --user-data-dir=/dev/shm/chromium"
)
GRID = (16, 12)
"""Squares that the page reports colours of."""


class Browser:
    """Chromium on a page with getUserMedia; in a `with`."""

    def __init__(self, guest: Guest, page: str = "page.html", runtime: str = "") -> None:
        """Plan to show a page of inside/, which may ask for something after a "?".

        `runtime` is the runtime folder of a sound server, if there is one.
        """
        self._guest, self._page, self._runtime = guest, page, runtime
        self.told: dict[str, Any] = {}
        """What the page said last."""
        self._asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="page")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        browser = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = HERE / "inside" / self.path.partition("?")[0].strip("/")
                if page.suffix == ".html":
                    self._answer(page.read_bytes(), "text/html")
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                asked = browser.hear(json.loads(data))
                self._answer(asked.encode(), "text/plain")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("content-type", f"{kind}; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: Any) -> None:
                pass

        return Handler

    def hear(self, told: dict[str, Any]) -> str:
        """Take in what the page says; returns what it shall do."""
        asked = self._asked.pop(0) if self._asked else ""
        if asked != "chapter":
            self.told = told | {"at": time.monotonic()}
        return asked

    def __enter__(self) -> Self:
        self._thread.start()
        origin = f"http://{HOST}:{self._server.server_address[1]}"
        trusted = f"--unsafely-treat-insecure-origin-as-secure={origin}"
        environment = f"XDG_RUNTIME_DIR={self._runtime}"
        self._process = self._guest.start(
            f"{environment} exec chromium {FLAGS} {trusted} '{origin}/{self._page}'"
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.signal(9)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def until(
        self, what: str, done: Callable[[dict[str, Any]], object], within: float = 120.0
    ) -> float:
        """Wait until what the page says is so; returns the seconds."""
        began = time.monotonic()
        while not (self.told and done(self.told)):
            if time.monotonic() - began > within:
                said = {name: value for name, value in self.told.items() if name != "grid"}
                raise Failed(f"the page: {what}: not within {within:g} s; {said}\n"
                             f"{self._process.text[-2000:]}")  # fmt: skip
            time.sleep(0.05)
        return time.monotonic() - began

    def chapter(self) -> dict[str, Any]:
        """End a chapter; returns how many pictures came in it and the longest wait, in ms."""
        told, self._asked = self.told, ["chapter"]
        self.told = {}
        self.until("tells", bool)
        return told

    def open_again(self) -> None:
        """Let the page ask for the camera, again or for the first time."""
        self._asked.append("open")

    @property
    def colours(self) -> NDArray[np.int_] | None:
        """Colours of the squares that the page shows: 12 rows, 16 columns, R, G, B."""
        if not (grid := self.told.get("grid")):
            return None
        return np.array(grid).reshape(GRID[1], GRID[0], 4)[:, :, :3]

    def shows(self, picture: NDArray[np.int_], tolerance: float = 12.0) -> bool:
        """Whether the page shows this picture, as `squares` gives it: mean error per square."""
        colours = self.colours
        return colours is not None and float(np.abs(colours - picture).mean()) <= tolerance


def squares(rgb: NDArray[np.uint8]) -> NDArray[np.int_]:
    """Shrink a picture as a canvas does: 12 rows, 16 columns, R, G, B."""
    return np.array(Image.fromarray(rgb).resize(GRID, Image.Resampling.BOX)).astype(int)
