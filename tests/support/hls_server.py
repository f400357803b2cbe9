"""An HLS server that publishes segments as time goes by, and can be made to fail."""

import threading
import time
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Self

import av
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from tests.support.frame_code import draw
from tests.support.web_server import WebServer

RATE = 20
LISTED = 4
"""Segments in the playlist."""


@cache
def coded(first: int, count: int, size: tuple[int, int], start: float) -> bytes:
    """Return one segment of pictures that carry their numbers; stamps begin at `start` s."""
    target = BytesIO()
    with av.open(target, "w", format="mpegts") as container:
        width, height = size
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(count), "qp": "20"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(count):
            picture = np.full((height, width, 3), 60, np.uint8)
            draw(picture, first + number)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(start * RATE) + number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def encrypted(segment: bytes, key: bytes) -> bytes:
    """Return a segment under AES-128 in CBC mode, padded as in PKCS #7 (RFC 8216, 4.3.2.4)."""
    encryptor = Cipher(AES(key), CBC(bytes(16))).encryptor()
    missing = 16 - len(segment) % 16
    return encryptor.update(segment + bytes([missing]) * missing) + encryptor.finalize()


@dataclass
class HlsServer(WebServer):
    """Publishes a segment each `duration` s since `began`, in each of the variants."""

    duration: float = 1.0
    sizes: dict[str, tuple[int, int]] = field(default_factory=lambda: {"one": (320, 240)})
    phase: float = 0.3
    """s since the newest segment when the first request may come."""
    asked: list[str] = field(default_factory=list)
    away: bool = False
    """Whether playlists are not found."""
    missing: set[int] = field(default_factory=set)
    """Segments that are not found."""
    stopped_at: float | None = None
    """When publishing ended."""
    restarts: list[tuple[int, int]] = field(default_factory=list)
    """(segment, number in the list from there on): the packager started again, with its stamps."""
    jumps: dict[int, float] = field(default_factory=dict)
    """Segments before which there is a discontinuity, and where their stamps begin, s."""
    parts: int = 0
    """Parts of each segment, for low latency: each is published when it is complete."""
    mime: str = "application/vnd.apple.mpegurl"
    """What playlists are said to be."""
    login: str = ""
    """The Authorization header that is required, if any."""
    target: int = 0
    """s that the playlist says its segments last at most; 0: as long as they do."""
    key: bytes = b""
    """What segments are encrypted with (AES-128), if any."""

    def __enter__(self) -> Self:
        if self.sizes == {"one": (320, 240)}:
            for number in range(LISTED):
                self._segment(number, 320, 240)
        self._closing = threading.Event()
        super().__enter__()
        self.began = time.monotonic() - LISTED * self.duration - self.phase
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        super().__exit__()

    def url(self, path: str = "/one/live.m3u8", login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}{path}"

    def made_at(self, number: int) -> float:
        """Return when a picture was made, monotonic s."""
        return self.began + number / RATE

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        if self.login and request.headers.get("Authorization") != self.login:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="here"')
            request.end_headers()
            return
        if request.path.startswith("/elsewhere"):
            request.send_response(302)
            request.send_header("Location", "/master.m3u8")
            request.end_headers()
            return
        if request.path.endswith("/bursts"):
            self._send_bursts(request)
            return
        is_away = self.away and ".m3u8" in request.path
        content = None if is_away else self._content(request.path)
        request.send_response(200 if content is not None else 404)
        request.send_header("Content-Length", str(len(content or b"")))
        request.send_header("Content-Type", "video/mp2t" if ".ts" in request.path else self.mime)
        request.end_headers()
        request.wfile.write(content or b"")

    def _send_bursts(self, request: BaseHTTPRequestHandler) -> None:
        """Send each segment over one connection when it is complete."""
        request.send_response(200)
        request.send_header("Content-Type", "video/mp2t")
        request.end_headers()
        number = int((time.monotonic() - self.began) / self.duration)
        while not self._closing.wait(self.began + number * self.duration - time.monotonic()):
            try:
                request.wfile.write(self._segment(number - 1, *self.sizes["one"]))
            except OSError:
                return
            number += 1

    def _content(self, path: str) -> bytes | None:
        name = path.partition("?")[0].split("/")
        if path == "/master.m3u8" or path.startswith("/watch"):
            return self._master().encode()
        if len(name) != 3 or name[1] not in self.sizes:
            return None
        if name[2] == "live.m3u8":
            return self._live().encode()
        if name[2].startswith("part"):
            return self._part(*map(int, name[2].removeprefix("part").split(".")[:2]))
        if name[2] == "key":
            return self.key
        return self._whole(int(name[2].removeprefix("segment").removesuffix(".ts")), name[1])

    def _whole(self, number: int, variant: str) -> bytes | None:
        if number in self.missing:
            return None
        segment = self._segment(number, *self.sizes[variant])
        return encrypted(segment, self.key) if self.key else segment

    def _part(self, number: int, part: int) -> bytes:
        each = round(self.duration * RATE / self.parts)
        first = (number * self.parts + part) * each
        return coded(first, each, self.sizes["one"], 10.0 + first / RATE)

    def _segment(self, number: int, width: int, height: int) -> bytes:
        if self.parts:
            return b"".join(self._part(number, part) for part in range(self.parts))
        each = round(self.duration * RATE)
        begun = max([0, *(first for first in self.jumps if first <= number)])
        start = self.jumps.get(begun, 10.0) + (number - begun) * self.duration
        return coded(number * each, each, (width, height), start)

    def _master(self) -> str:
        rows = ["#EXTM3U", '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="en",URI="sound/live.m3u8"']
        for name, (width, height) in self.sizes.items():
            rows.append(
                f"#EXT-X-STREAM-INF:BANDWIDTH={width * height},RESOLUTION={width}x{height},"
                'CODECS="avc1.42c00d,mp4a.40.2",AUDIO="a"'
            )
            rows.append(f"{name}/live.m3u8")
        return "\n".join([*rows, ""])

    def _parts(self, number: int, published: int) -> list[str]:
        length = f"DURATION={self.duration / max(1, self.parts):.3f}"
        return [
            f'#EXT-X-PART:{length},URI="part{number}.{part}.ts"'
            for part in range(self.parts)
            if number * self.parts + part < published
        ]

    def _live(self) -> str:
        now = min(time.monotonic(), self.stopped_at or float("inf"))
        count = int((now - self.began) / self.duration)
        parts = int((now - self.began) / self.duration * self.parts) if self.parts else 0
        begun, counted = 0, 0
        for first, number in self.restarts:
            if count > first:
                begun, counted = first, number
        first = max(begun, count - LISTED)
        rows = [
            "#EXTM3U",
            "#EXT-X-VERSION:3",
            f"#EXT-X-TARGETDURATION:{self.target or max(1, round(self.duration))}",
            f"#EXT-X-MEDIA-SEQUENCE:{first - begun + counted}",
        ]
        if self.key:
            rows.append(f'#EXT-X-KEY:METHOD=AES-128,URI="key",IV=0x{bytes(16).hex()}')
        if self.parts:
            rows.append(f"#EXT-X-PART-INF:PART-TARGET={self.duration / self.parts:.3f}")
        for number in range(first, count):
            if number in self.jumps:
                rows.append("#EXT-X-DISCONTINUITY")
            if number >= count - 2:
                rows += self._parts(number, parts)
            rows += [f"#EXTINF:{self.duration:.3f},", f"segment{number}.ts"]
        rows += self._parts(count, parts)
        return "\n".join([*rows, ""])
