"""How FFmpeg is to open a source: what it gets, and what else is tried."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from relayd.config.settings import SourceSettings
from relayd.source.addresses import (
    LAVFI,
    Stat,
    descriptor_of,
    ffmpeg_url,
    is_fifo,
    is_local,
    is_pipe,
    is_regular,
    path_of,
    scheme_of,
)
from relayd.source.kinds import SourceKind, guess


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How to open a source: what FFmpeg gets, and alternatives to try."""

    kind: SourceKind
    """As guessed; `kinds.settle` decides after opening, unless the user has decided."""
    is_settled: bool
    """Whether the user has decided on the kind."""
    url: str = field(repr=False)
    """As FFmpeg needs it: complete, including any secrets."""
    demuxer: str
    """A demuxer's name, or empty to let FFmpeg detect it."""
    options: tuple[dict[str, str], ...] = field(repr=False)
    """One set per attempt: the next is tried if one does not work."""


_PROBE: Final = {"probesize": "32768", "analyzeduration": "500000", "fpsprobesize": "0"}
"""32 KiB hold the first parameter sets; more would only delay the first picture. So would more
than 0.5 s of stream to look for what is missing, such as an announced sound that never comes (0
means 5 s, and 90 s for FLV).

No `fflags=nobuffer`: it discards the probed key frame, so that the first picture waits for
the next one (1.15 s instead of 0.12 s from a server with a key frame every second).
"""
_TRANSPORT_STREAM_PROBE: Final = _PROBE | {"probesize": "500000", "analyzeduration": "100000"}
"""MPEG-TS repeats its tables about every 100 ms: 500 kB contain one at up to 40 Mbit/s. Of JPEG
pictures in a row FFmpeg looks at 25 for each second of analysis, however long they take."""
_PIPE_PROBE: Final = _TRANSPORT_STREAM_PROBE | {"analyzeduration": "500000"}
"""There is no second attempt with a longer one."""
LONG_PROBE: Final = {"probesize": "5000000", "analyzeduration": "5000000"}
"""FFmpeg's own values, for a stream whose pictures begin late."""
MJPEG_PROBE: Final = {"probesize": "32768", "analyzeduration": "1"}
"""JPEG pictures in a row say all about themselves in the first one."""
_SESSION: Final = {"protocol_whitelist": "file,crypto,data,rtp,udp,tcp"}
"""What an SDP file may lead to."""
LISTEN_TIMEOUT: Final = 10.0
"""s to wait for a caller, with `mode=listener`; the next attempt waits again."""


def plan_input(settings: SourceSettings, look: Stat = os.stat) -> InputPlan:
    """Return how to open a source; the user's options take precedence.

    Those of a capture device are completed by relayd.source.capture, which asks the device.

    `look` tells what a local path is.
    """
    url, options = ffmpeg_url(settings.url.reveal()), settings.options
    if is_pipe(url) and is_regular(
        url
    ):  # as a file it can be looped, and have its index at its end
        url = f"/dev/fd/{descriptor_of(url)}"
    kind = guess(url, settings.format, settings.kind, look)
    demuxer = settings.format
    attempts: tuple[Mapping[str, str], ...] = ({},)
    if kind is SourceKind.GENERATOR or url.startswith(LAVFI):
        url, demuxer = url.removeprefix(LAVFI), "lavfi"
    elif kind is SourceKind.DEVICE:
        url, demuxer = path_of(url), demuxer or "v4l2"
    elif is_piped(url, look):
        attempts = (_PIPE_PROBE,)  # what was read once is gone: there is no second attempt
    elif kind is SourceKind.LIVE:
        attempts = _live_options(url, str(int(_longest_wait(settings) * 1e6)))
    if "rtsp_transport" in options:
        attempts = attempts[:1]
    if scheme_of(url) == "srt":
        url = _with_srt_options(url, options, settings.stall_timeout)
    return InputPlan(
        kind,
        settings.kind != "auto",
        url,
        demuxer,
        tuple(dict(attempt) | options for attempt in attempts),
    )


def is_piped(url: str, look: Stat = os.stat) -> bool:
    """Whether a URL leads to standard input or a named pipe, which relayd reads itself."""
    if scheme_of(url) == "pipe":
        return True
    return is_local(url) and is_fifo(path_of(url), look)


def _longest_wait(settings: SourceSettings) -> float:
    """Return the s that FFmpeg's protocols may wait for anything at all.

    They know one limit, for opening and reading. The limit that applies at the moment, which
    may be shorter, ends their calls (relayd.media.interrupt).
    """
    return max(settings.open_timeout, settings.first_frame_timeout, settings.stall_timeout)


def _live_options(url: str, microseconds: str) -> tuple[Mapping[str, str], ...]:
    """Return FFmpeg's low-delay options and its time limit, under each protocol's option name."""
    match scheme_of(url):
        case "rtsp":
            limits = _PROBE | {"timeout": microseconds}
            # Over TCP, or UDP if the camera says that it has no TCP; by UDP alone if it does
            # not say so but fails.
            return (
                limits | {"rtsp_transport": "udp+tcp", "rtsp_flags": "prefer_tcp"},
                limits | {"rtsp_transport": "udp"},
            )
        case "rtsps":
            return (_PROBE | {"timeout": microseconds, "rtsp_transport": "tcp"},)
        case "udp":
            # A burst that overflows the buffer loses frames, not the stream.
            probe = _TRANSPORT_STREAM_PROBE | {"overrun_nonfatal": "1", "timeout": microseconds}
        case "tcp":
            probe = _TRANSPORT_STREAM_PROBE | {"timeout": microseconds}
        case "http" | "https":
            # Else FFmpeg asks for the connection to be closed, then uses it again to seek.
            more = {"rw_timeout": microseconds, "multiple_requests": "1"}
            probe = _TRANSPORT_STREAM_PROBE | more
        case "rtmp" | "rtmps":  # its "timeout" makes it listen
            probe = _TRANSPORT_STREAM_PROBE | {"rw_timeout": microseconds}
        case "" | "file":
            is_session = path_of(url).lower().endswith(".sdp")
            return (_PROBE | (_SESSION if is_session else {}),)
        case _:
            return (_TRANSPORT_STREAM_PROBE,)
    return probe, probe | LONG_PROBE


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
