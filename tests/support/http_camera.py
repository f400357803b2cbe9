"""Cameras that speak HTTP, each with the habits of a real one, on one server."""

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FIRST_GREY, GREY_STEP, PICTURES = 40, 8, 24
RATE = 17
"""Pictures a second of the moving cameras."""
_MULTIPART = "multipart/x-mixed-replace; boundary=frame"


def jpeg(number: int) -> bytes:
    """Return a picture that tells its number by its grey; noise makes it as large as a real one."""
    grey = FIRST_GREY + GREY_STEP * (number % PICTURES)
    picture = np.full((240, 320, 3), grey, np.uint8)
    picture[-40:] = np.random.default_rng(number).integers(0, 255, (40, 320, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "JPEG", quality=50)
    return written.getvalue()


def png(number: int) -> bytes:
    """Return a picture of the same kind as a PNG."""
    written = io.BytesIO()
    with Image.open(io.BytesIO(jpeg(number))) as picture:
        picture.save(written, "PNG")
    return written.getvalue()


def number_of(i420: NDArray[np.uint8]) -> int:
    """Return the number of a picture that is shown."""
    grey = (int(i420[240, 320]) - 16) * 255 / 219
    return round((grey - FIRST_GREY) / GREY_STEP)


class HttpCamera:
    """Serves the paths below, counts the requests of each, and can hold or refuse its answers."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.hold = 0.0
        """s before the answer's first byte."""
        self.is_refusing = False
        """Whether the answer is 503."""
        self.closing = threading.Event()
        self.files: dict[str, bytes] = {}
        """Content by path that is sent once a request, at its natural pace: 1 s of it in 1 s."""
        self.seconds = 1.0
        """Length of that content."""
        self.large = b""
        """What /large.jpg answers."""
        self._pictures = [jpeg(number) for number in range(PICTURES)]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def serve(self, path: str, file: Path, seconds: float) -> str:
        """Serve a file's bytes in real time, again and again; returns the URL."""
        self.files[path], self.seconds = file.read_bytes(), seconds
        return self.url(path)

    def picture(self, path: str) -> bytes:
        """Return another picture at each request of a path."""
        return self._pictures[(self.requests[path] - 1) % PICTURES]

    def moving(self, rate: float = RATE) -> Iterator[bytes]:
        """Return pictures at a rate, until the server closes."""
        began, number = time.monotonic(), 0
        while not self.closing.wait(max(0.0, began + number / rate - time.monotonic())):
            yield self._pictures[number % PICTURES]
            number += 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        camera = self

        class Handler(_Handler):
            pass

        Handler.camera = camera
        return Handler


class _Handler(BaseHTTPRequestHandler):
    camera: HttpCamera

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        camera, path = self.camera, self.path.partition("?")[0]
        camera.requests[path] += 1
        if camera.closing.wait(camera.hold):
            return
        if camera.is_refusing:
            self.send_error(503)
            return
        answers: dict[str, Callable[[], None]] = {
            "/snapshot.cgi": lambda: self._picture(camera.picture(path)),
            "/snap.jpg": lambda: self._picture(camera.picture(path)),
            "/still.jpg": lambda: self._picture(jpeg(3)),
            "/nolength": lambda: self._picture(camera.picture(path), has_length=False),
            "/snap.png": lambda: self._picture(png(camera.requests[path]), "image/png"),
            "/large.jpg": lambda: self._picture(camera.large),
            "/half.jpg": self._sometimes_half,
            "/cut.jpg": lambda: self._sometimes_cut(has_length=True),
            "/cut": lambda: self._sometimes_cut(has_length=False),
            "/faststream.jpg": self._multipart,
            "/noinitial": lambda: self._multipart(has_first_boundary=False),
            "/imagejpg": lambda: self._multipart(content_type="image/jpg"),
            "/slow": lambda: self._multipart(rate=1 / 0.8),
            "/jpegs": self._jpegs,
        }
        try:
            if path in camera.files:
                self._file(camera.files[path])
            elif path in answers:
                answers[path]()
            else:
                self.send_error(404)
        except OSError:  # relayd hung up
            self.close_connection = True

    def _begin(self, content_type: str, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _picture(
        self, content: bytes, content_type: str = "image/jpeg", *, has_length: bool = True
    ) -> None:
        self._begin(content_type, len(content) if has_length else None)
        self.wfile.write(content)

    def _sometimes_half(self) -> None:
        content = self.camera.picture("/half.jpg")
        is_half = self.camera.requests["/half.jpg"] % 3 == 0
        self._picture(b"busy" if is_half else content)

    def _sometimes_cut(self, *, has_length: bool) -> None:
        path = self.path.partition("?")[0]
        content = self.camera.picture(path)
        self._begin("image/jpeg", len(content) if has_length else None)
        is_cut = self.camera.requests[path] % 4 > 1
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        self.close_connection = True

    def _multipart(
        self,
        *,
        content_type: str = "image/jpeg",
        has_first_boundary: bool = True,
        rate: float = RATE,
    ) -> None:
        self._begin(_MULTIPART)
        boundary = b"--frame\r\n" if has_first_boundary else b""
        for content in self.camera.moving(rate):
            head = f"Content-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wfile.write(boundary + head.encode() + content + b"\r\n")
            boundary = b"--frame\r\n"

    def _jpegs(self) -> None:
        self._begin("image/jpeg")
        for content in self.camera.moving():
            self.wfile.write(content)

    def _file(self, content: bytes) -> None:
        self._begin("application/octet-stream")
        parts = 50
        size = len(content) // parts
        for start in range(0, len(content), size):
            self.wfile.write(content[start : start + size])
            if self.camera.closing.wait(self.camera.seconds / parts):
                return
