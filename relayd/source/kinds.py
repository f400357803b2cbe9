"""What kind of source a URL is, and how FFmpeg should read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit


class SourceKind(Enum):
    """How a source delivers its pictures."""

    FILE = "file"
    """A recording: paced by its own time stamps, looped; its end is no failure."""
    IMAGE = "image"
    """One picture, shown without end."""
    LIVE = "live"
    """A live stream: the newest picture counts, its end is a failure."""
    BURSTS = "bursts"
    """A live stream that arrives in bursts (HLS, HTTP): played evenly, by its time stamps."""
    DEVICE = "device"
    """A capture device of this machine: live, and may be unplugged."""
    GENERATOR = "generator"
    """A test picture of FFmpeg's (lavfi): paced like a file."""

    @property
    def paced(self) -> bool:
        """Whether relayd sets the pace, not the source."""
        return self in (SourceKind.FILE, SourceKind.GENERATOR)

    @property
    def live(self) -> bool:
        """Whether its end is a failure, and pictures that are too late are left out."""
        return self in (SourceKind.LIVE, SourceKind.BURSTS, SourceKind.DEVICE)


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How to open a source: what FFmpeg gets, and alternatives to try."""

    kind: SourceKind
    url: str = field(repr=False)
    """As FFmpeg needs it: complete, including any secrets."""
    demuxer: str
    """A demuxer's name, or empty to let FFmpeg detect it."""
    options: tuple[dict[str, str], ...] = field(repr=False)
    """One set per attempt: the next is tried if one is unusable."""


_IMAGES: Final = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
_RECORDINGS: Final = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".gif"}
_LAVFI: Final = "lavfi:"

_LIVE_PROBE: Final = {"probesize": "32768", "analyzeduration": "0", "fpsprobesize": "0"}
"""32 KiB hold the first parameter sets; more would only delay the first picture.

No `fflags=nobuffer`: it discards the probed key frame, so that the first picture waits for
the next one (1.15 s instead of 0.12 s from a server with a key frame every second).
"""
_TRANSPORT_STREAM_PROBE: Final = _LIVE_PROBE | {"probesize": "500000"}
"""MPEG-TS repeats its tables about every 100 ms: 500 kB contain one at up to 40 Mbit/s."""
LISTEN_TIMEOUT: Final = 10.0
"""s to wait for a caller, with `mode=listener`; the next attempt waits again."""
_CAMERA_MODES: Final[tuple[dict[str, str], ...]] = (
    {"input_format": "mjpeg", "video_size": "1280x720", "framerate": "30"},
    {"video_size": "640x480", "framerate": "30"},
    {},
)
"""USB cameras reach 720p30 only as MJPEG; any supports 640x480; else the current mode."""


def plan_input(
    url: str, demuxer: str, options: Mapping[str, str], read_timeout: float
) -> InputPlan:
    """Return the kind of a URL and how to open it; the user's `options` take precedence.

    An http(s) URL is a recording or an image if its path ends like one, else live; the
    connection checks again after opening, when it is known whether the stream has an end.
    """
    kind = classify(url, demuxer)
    if kind is SourceKind.GENERATOR:
        return InputPlan(kind, url.removeprefix(_LAVFI), "lavfi", (dict(options),))
    if kind is SourceKind.DEVICE:
        return InputPlan(
            kind, url, demuxer or "v4l2", tuple(mode | dict(options) for mode in _CAMERA_MODES)
        )
    defaults = _live_options(url, read_timeout) if kind is SourceKind.LIVE else {}
    if _scheme_and_path(url)[0] == "srt":
        url = _with_srt_options(url, options, read_timeout)
    return InputPlan(kind, url, demuxer, (defaults | dict(options),))


def classify(url: str, demuxer: str = "") -> SourceKind:
    """Return the kind of a URL, from its text alone (and whether a path is a pipe)."""
    if demuxer == "lavfi" or url.startswith(_LAVFI):
        return SourceKind.GENERATOR
    if demuxer in ("v4l2", "video4linux2") or url.startswith("/dev/video"):
        return SourceKind.DEVICE
    scheme, path = _scheme_and_path(url)
    ending = PurePosixPath(path).suffix.lower()
    if scheme not in ("", "file", "http", "https"):
        return SourceKind.LIVE
    if ending in _IMAGES:
        return SourceKind.IMAGE
    if scheme in ("http", "https"):
        live = ending not in _RECORDINGS
    else:
        live = ending == ".sdp" or _is_pipe(path)
    return SourceKind.LIVE if live else SourceKind.FILE


_PLAYLISTS: Final = {"hls", "dash"}
_WITH_STAMPS: Final = {"mpegts", "flv", "live_flv", "mov", "matroska", "webm", "mp4"}


def comes_in_bursts(demuxer: str, scheme: str) -> bool:
    """Whether a source without end is played by its stamps: lists of segments, and HTTP.

    `demuxer` is FFmpeg's name, or names with commas. MJPEG and raw video over HTTP have no stamps
    of their own, so the newest picture is what counts there.
    """
    names = set(demuxer.split(","))
    return bool(names & _PLAYLISTS or (scheme in ("http", "https") and names & _WITH_STAMPS))


def _scheme_and_path(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are not an IPv6 address
        return "", url
    if parts.scheme == "pipe" or "://" in url or parts.scheme == "file":
        return parts.scheme, parts.path
    return "", url


def _is_pipe(path: str) -> bool:
    try:
        return Path(path).is_fifo()
    except (OSError, ValueError):
        return False


def _live_options(url: str, read_timeout: float) -> dict[str, str]:
    """Return FFmpeg's low-delay options and its time limit, under each protocol's option name."""
    microseconds = str(int(read_timeout * 1e6))
    match _scheme_and_path(url)[0]:
        case "rtsp" | "rtsps":
            return _LIVE_PROBE | {"rtsp_transport": "tcp", "timeout": microseconds}
        case "udp":
            # A burst that overflows the buffer loses frames, not the stream.
            return _TRANSPORT_STREAM_PROBE | {"timeout": microseconds, "overrun_nonfatal": "1"}
        case "tcp":
            return _TRANSPORT_STREAM_PROBE | {"timeout": microseconds}
        case "http" | "https" | "rtmp" | "rtmps":  # rtmp's "timeout" makes it listen
            return _TRANSPORT_STREAM_PROBE | {"rw_timeout": microseconds}
        case "":
            return _LIVE_PROBE | {"protocol_whitelist": "file,crypto,data,rtp,udp,tcp"}
        case _:
            return dict(_TRANSPORT_STREAM_PROBE)


def _with_srt_options(url: str, options: Mapping[str, str], read_timeout: float) -> str:
    """Put the options of FFmpeg's SRT protocol into the URL's query, the only place it reads.

    It uses the first of two values: those of the URL take precedence.
    """
    limits = {
        "timeout": str(int(read_timeout * 1e6)),
        "listen_timeout": str(int(LISTEN_TIMEOUT * 1e6)),
    }
    query = "&".join(f"{key}={value}" for key, value in (limits | dict(options)).items())
    return f"{url}{'&' if '?' in url else '?'}{query}"
