"""What a stream output may be written to: push URLs and files, by scheme and ending."""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from relayd.errors import OutputError
from relayd.urls.quoting import quoted_place

_PUSH_FORMATS: Final = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "rtmp": "flv",
    "rtmps": "flv",
    "srt": "mpegts",
    "udp": "mpegts",
    "tcp": "mpegts",
    "rtp": "rtp_mpegts",
}
_FILE_FORMATS: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".ts": "mpegts",
    ".flv": "flv",
}


_WITHOUT_OPUS: Final = {
    "flv": "RTMP and FLV have no Opus that servers and players read",
    "mov": "MOV files have no Opus",
}
"""By muxer. FFmpeg 8 writes the Opus of Enhanced RTMP, which FFmpeg 5 and most services refuse."""
_WITHOUT_PORT: Final = {"udp", "tcp", "rtp", "srt"}
"""Schemes without a default port."""


def is_push(target: str) -> bool:
    """Return whether `target` is a URL to push to, rather than a file."""
    return scheme_of(target) in _PUSH_FORMATS


def format_of(target: str) -> str:
    """Return FFmpeg's muxer for a push URL or file name; OutputError when none is known."""
    scheme = scheme_of(target)
    if scheme in _PUSH_FORMATS:
        return _PUSH_FORMATS[scheme]
    if "://" in target:
        known = ", ".join(f"{name}://" for name in _PUSH_FORMATS)
        raise OutputError(f"cannot push to {scheme}://", hint=f"use one of {known}")
    suffix = PurePosixPath(target).suffix.lower()
    if suffix not in _FILE_FORMATS:
        raise OutputError(
            f"no container is known for the file {quoted_place(target)}",
            hint=f"name it with one of {', '.join(_FILE_FORMATS)}",
        )
    return _FILE_FORMATS[suffix]


def require_audio(target: str, codec: str) -> None:
    """Raise OutputError if a target that `format_of` knows cannot carry this sound."""
    if codec == "opus" and (reason := _WITHOUT_OPUS.get(format_of(target))):
        raise OutputError(reason, hint='give audio = "aac", or another kind of target')


def require_address(target: str) -> None:
    """Raise OutputError for a push URL without host, or without a port that its scheme needs.

    `target` is already known to be a URL.
    """
    parts, scheme = urlsplit(target), scheme_of(target)
    example = f"{scheme}://host:5000" if scheme in _WITHOUT_PORT else f"{scheme}://host/…"
    if not parts.hostname and not waits_for_caller(target):
        raise OutputError("it names no host", hint=f"write it like {example}")
    if scheme in _WITHOUT_PORT and parts.port is None:
        raise OutputError("it names no port", hint=f"write it like {example}")


def waits_for_caller(target: str) -> bool:
    """Whether a push URL asks to listen, so that the receiver connects to us."""
    query = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    return query.get("listen", "0") != "0" or query.get("mode") == "listener"


def scheme_of(target: str) -> str:
    """Return the scheme of a URL in lower case; empty for a file name."""
    try:
        return urlsplit(target).scheme.lower()
    except ValueError:  # an invalid host; the error message would quote it
        return target.partition(":")[0].lower()
