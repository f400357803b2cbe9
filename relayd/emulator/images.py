"""Images that the emulator stores and images that it fetches.

The service reads a face image from a URL. A local file gets one by
`POST /emulator/images`; any URL that a caller names is fetched here, within limits.
"""

import asyncio
import secrets
import struct
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

from relayd.errors import FaceRejected, ServiceError
from relayd.http.client import HttpClient

LARGEST_IMAGE = 10 * 1024 * 1024
"""Bytes of one image file."""
FETCH_TIMEOUT = 15.0
"""s for the whole fetch, redirects included."""
MOST_REDIRECTS = 3
KEPT_IMAGES = 64
"""Images stored at once; the oldest is dropped first."""

PARAMETER_ERROR = 1003
_ONCE = {"Connection": "close"}  # image hosts are rarely used twice
_REDIRECTS = {301, 302, 303, 307, 308}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image file as uploaded."""

    body: bytes
    media_type: str


class ImageStore:
    """Stores the newest images, each under an unguessable name, and the demo's `portrait`."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, StoredImage] = OrderedDict()
        bundled = files("relayd.emulator").joinpath("media", "portrait.png").read_bytes()
        self._bundled = {"portrait": StoredImage(bundled, "image/png")}

    def put(self, body: bytes) -> str:
        """Store an image file and return its name; FaceRejected when it is invalid or too large."""
        if len(body) > LARGEST_IMAGE:
            raise FaceRejected(f"An image may have {LARGEST_IMAGE} bytes", code=PARAMETER_ERROR)
        media_type = next((kind for start, kind in _SIGNATURES if body.startswith(start)), "")
        if not media_type:
            raise FaceRejected("This is no PNG, JPEG, GIF, WebP or BMP image", code=PARAMETER_ERROR)
        name = secrets.token_hex(16)
        self._images[name] = StoredImage(body, media_type)
        while len(self._images) > KEPT_IMAGES:
            self._images.popitem(last=False)
        return name

    def get(self, name: str) -> StoredImage | None:
        """Return the image of that name, if it is still stored."""
        return self._bundled.get(name) or self._images.get(name)


async def fetch_image(http: HttpClient, url: str) -> bytes:
    """Fetch an image file over http(s); FaceRejected says why that failed."""
    try:
        async with asyncio.timeout(FETCH_TIMEOUT):
            return await _follow(http, url)
    except TimeoutError:
        why = f"no complete answer within {FETCH_TIMEOUT:.0f} s"
    except FaceRejected:
        raise
    except ServiceError as fault:
        why = fault.message
    except ValueError:  # of urllib, about hosts like "[::1" and what a redirect names
        why = "its URL is invalid"
    raise FaceRejected(f"The image cannot be fetched: {why}", code=PARAMETER_ERROR)


async def _follow(http: HttpClient, url: str) -> bytes:
    for _ in range(MOST_REDIRECTS + 1):
        if urlsplit(url).scheme not in {"http", "https"}:
            raise FaceRejected("The image needs an http(s) URL", code=PARAMETER_ERROR)
        answer = await http.request("GET", url, headers=_ONCE, largest=LARGEST_IMAGE)
        if answer.status not in _REDIRECTS:
            break
        url = urljoin(url, answer.headers.get("location", ""))
    else:
        raise FaceRejected(
            f"The image's URL redirects more than {MOST_REDIRECTS} times", code=PARAMETER_ERROR
        )
    if answer.status != 200:  # noqa: PLR2004  HTTP status
        raise FaceRejected(
            f"The image cannot be fetched: HTTP {answer.status}", code=PARAMETER_ERROR
        )
    return answer.body


def png(bgr: NDArray[np.uint8]) -> bytes:
    """Write a BGR picture, shape (height, width, 3), as a PNG file (ISO/IEC 15948)."""
    height, width = bgr.shape[:2]
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each row starts with filter type 0
    rows[:, 1:] = bgr[:, :, ::-1].reshape(height, width * 3)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
        + chunk(b"IEND", b"")
    )
