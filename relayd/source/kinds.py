"""What kind of source there is: guessed from the URL, settled by a look after opening."""

import os
from enum import Enum
from pathlib import PurePosixPath
from typing import Final, Literal

from relayd.media.look import Look
from relayd.source import addresses
from relayd.source.addresses import Stat

WantedKind = Literal["auto", "live", "file", "image", "camera"]
"""As in `[source] kind`."""


class SourceKind(Enum):
    """How a source delivers its pictures."""

    FILE = "file"
    """A recording: paced by its own time stamps, looped; its end is no failure."""
    IMAGE = "image"
    """One picture, shown without end."""
    SNAPSHOT = "snapshot"
    """An http(s) URL that answers with one picture, another one at each request: polled."""
    LIVE = "live"
    """A live stream: the newest picture counts, its end is a failure."""
    BURSTS = "bursts"
    """A live stream that arrives in bursts (HLS, HTTP): played evenly, by its time stamps."""
    PIPE = "pipe"
    """Standard input or a named pipe: paced by its own time stamps, read once."""
    DEVICE = "camera"
    """A capture device of this machine: live, and may be unplugged."""
    GENERATOR = "generator"
    """A test picture of FFmpeg's (lavfi): paced like a file."""

    @property
    def live(self) -> bool:
        """Whether it goes on in real time, so that late pictures are left out."""
        return self in (SourceKind.LIVE, SourceKind.BURSTS, SourceKind.DEVICE, SourceKind.SNAPSHOT)


HTTP: Final = {"http", "https"}
_FETCHED: Final = HTTP | {"ftp", "ftps", "sftp"}
"""Schemes behind which there may be a recording, a stream or a picture."""
_RECORDINGS: Final = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".gif"}
_WANTED: Final = {
    "live": SourceKind.LIVE,
    "file": SourceKind.FILE,
    "image": SourceKind.IMAGE,
    "camera": SourceKind.DEVICE,
}
_AS_WANTED: Final = {
    (SourceKind.GENERATOR, "file"),
    (SourceKind.PIPE, "file"),
    (SourceKind.DEVICE, "live"),
}
"""Kinds that are special cases of the one that the user names."""
_STREAMED: Final = {"rtsp", "rtp", "sdp", "sap"}
"""Demuxers whose packets come from the network in real time, whatever opened them."""
_PLAYLISTS: Final = {"hls", "dash"}
"""Demuxers that know from their playlist whether there is an end."""
_INDEXED: Final = {"matroska", "webm", "hls", "dash"}
"""Demuxers whose duration is that of a finished recording, even with no length in HTTP."""
_STAMPED: Final = {"mpegts", "flv", "live_flv", "mov", "mp4", "matroska", "webm"}
"""Demuxers with stamps of the sender's clock: over HTTP a stream is played by them. MJPEG and raw
video have none, so the newest picture is what counts there."""
_STILLS: Final = {"mjpeg", "png", "bmp", "webp", "gif", "tiff", "jpegls", "jpeg2000"}
"""Codecs that snapshots come in."""
_MULTIPART: Final = "mpjpeg"
_LONGEST_ANSWER: Final = 2**31 - 1
"""Bytes: a Content-Length from here on, with no duration, is a camera's way to say endless."""


def guess(
    url: str, demuxer: str = "", wanted: WantedKind = "auto", look: Stat = os.stat
) -> SourceKind:
    """Return the kind that a URL in FFmpeg's form seems to be of, before it is opened.

    `look` tells what a local path is. If the user left the decision to relayd, only how it is
    opened depends on the guess.
    """
    guessed = _guess(url, demuxer, look)
    if (guessed, wanted) in _AS_WANTED or wanted == "auto":
        return guessed
    return _WANTED[wanted]


def _guess(url: str, demuxer: str, look: Stat) -> SourceKind:
    if demuxer == "lavfi" or url.startswith(addresses.LAVFI):
        return SourceKind.GENERATOR
    if demuxer in ("v4l2", "video4linux2"):
        return SourceKind.DEVICE
    path = addresses.path_of(url)
    ending = PurePosixPath(path).suffix.lower()
    if addresses.is_local(url):
        return _guess_local(path, ending, look)
    scheme = addresses.scheme_of(url)
    if scheme == "pipe":
        return SourceKind.PIPE
    is_recording = scheme in _FETCHED and (ending in _RECORDINGS or scheme not in HTTP)
    return SourceKind.FILE if is_recording else SourceKind.LIVE


def _guess_local(path: str, ending: str, look: Stat) -> SourceKind:
    if addresses.is_capture_device(path, look):
        return SourceKind.DEVICE
    if addresses.is_fifo(path, look):
        return SourceKind.PIPE
    return SourceKind.LIVE if ending == ".sdp" else SourceKind.FILE


def settle(guessed: SourceKind, scheme: str, found: Look) -> SourceKind:
    """Return the kind of an open source: what was found there decides, not its name."""
    if guessed not in (SourceKind.FILE, SourceKind.LIVE):
        return guessed
    if found.demuxers & _STREAMED:
        return SourceKind.LIVE
    if found.demuxers & _PLAYLISTS and not _is_finished(found):
        return SourceKind.BURSTS
    if scheme in ("", "file"):
        return SourceKind.IMAGE if _is_picture(found) else SourceKind.FILE
    return _settle_fetched(found) if scheme in _FETCHED else SourceKind.LIVE


def _settle_fetched(found: Look) -> SourceKind:
    if _is_picture(found):  # of unknown length it may go on, as JPEG pictures in a row
        return SourceKind.SNAPSHOT if found.size > 0 else SourceKind.LIVE
    if _is_finished(found):
        return SourceKind.FILE
    return SourceKind.BURSTS if found.demuxers & _STAMPED else SourceKind.LIVE


def as_wanted(wanted: SourceKind, found: Look) -> SourceKind:
    """Return the kind of an open source about which the user has decided.

    No segment of a playlist can be shown as it arrives, so live means bursts there.
    """
    is_list = bool(found.demuxers & _PLAYLISTS)
    return SourceKind.BURSTS if wanted is SourceKind.LIVE and is_list else wanted


def may_be_polled(scheme: str, found: Look) -> bool:
    """Whether the next request may bring another picture, if this answer ends after one."""
    return scheme in HTTP and found.codec in _STILLS


def is_unread_multipart(found: Look, width: int) -> bool:
    """Whether FFmpeg took it for a multipart stream by its name, but could read no part of it."""
    return _MULTIPART in found.demuxers and width == 0


def _is_picture(found: Look) -> bool:
    """Whether it is one picture, as far as can be seen before it is read."""
    return found.pictures == 1 or all(name.endswith("_pipe") for name in found.demuxers)


def _is_finished(found: Look) -> bool:
    """Whether it is a recording with an end, not a stream.

    A live FLV may claim the duration of the file that it was made from, and a fragmented MP4
    that of its first part: without a length these count for nothing.
    """
    if found.demuxers & _PLAYLISTS:
        return found.duration > 0
    if _MULTIPART in found.demuxers:
        return False
    if found.size > 0:
        return found.duration > 0 or found.size < _LONGEST_ANSWER
    has_index = bool(found.demuxers & _INDEXED) or found.pictures > 0
    return found.duration > 0 and has_index
