"""What to say when FFmpeg cannot open or read a source, from its error and the URL alone.

Pure functions. FFmpeg says "Input/output error" for a web page, an unknown host and a certificate
alike: where several causes are possible the error has a `symptom`, and relayd.media.causes names
the cause once somebody has looked.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import av
import av.error

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.media import compat
from relayd.media.fit import describe
from relayd.urls.encoding import HINT, has_login, lacks_encoding

DEVICES: Final = "`relayd devices` lists those that are here"
_LISTENING: Final = {"udp", "rtp", "srtp"}
"""Schemes of which data just arrives, or does not."""
_LONGEST_NAME: Final = 200
"""Characters of a source's name in a message."""


class Symptom(StrEnum):
    """What FFmpeg reported where several causes are possible."""

    NOT_MEDIA = "not media"
    """Something was read, but it is no video."""
    BROKEN = "broken"
    """Connecting or reading failed."""
    INVALID = "invalid"
    """An argument was refused: a part of the URL, or an option's value."""
    STATUS = "status"
    """The server refused, with a status that FFmpeg does not name."""
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    FOLDER = "folder"
    BUSY = "busy"
    NO_DECODER = "no decoder"
    UNDECODABLE = "undecodable"
    """There is a video, but no picture came out of the decoder."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What FFmpeg was asked to open."""

    url: str
    """Complete, including any secrets; never shown."""
    name: str
    """As it may be shown."""
    options: Mapping[str, str]
    live: bool
    """Whether what cannot be read now may come later."""

    @property
    def scheme(self) -> str:
        """In lower case; empty for a path."""
        before, found, _ = self.url.partition("://")
        return before.lower() if found else ""

    @property
    def shown(self) -> str:
        """The name, shortened."""
        return self.name if len(self.name) <= _LONGEST_NAME else f"{self.name[:_LONGEST_NAME]}…"


def refusal(error: Exception, asked: Asked) -> SourceError:
    """Return the error to raise when FFmpeg could not open a source."""
    for kinds, words in _WORDS:
        if isinstance(error, kinds) and (found := words(error, asked)) is not None:
            return found
    return SourceUnreachable(f"{asked.shown}: {describe(error)}")


def read_failure(error: Exception, name: str) -> SourceError:
    """Return the error to raise when reading an open source failed."""
    return _with(SourceLost(f"{name}: {describe(error)}"), Symptom.BROKEN)


def no_video(name: str, kinds: set[str]) -> SourceError:
    """Return the error for a source that holds only streams of these kinds, such as `audio`."""
    alone = ": it has sound alone" if "audio" in kinds else ""
    return SourceUnusable(f"{name} has no video{alone}", hint="give a source with a picture")


def no_decoder(name: str, codec: str) -> SourceError:
    """Return the error for a video without a decoder; `codec` is its name, if known."""
    what = f"{codec}, the video of {name}" if codec else f"the video of {name}"
    error = SourceUnusable(
        f"FFmpeg as installed has no decoder for {what}", hint="convert it, for example to H.264"
    )
    return _with(error, Symptom.NO_DECODER)


def no_picture(name: str) -> SourceError:
    """Return the error for a file of which no packet could be decoded."""
    error = SourceUnusable(f"{name} contains no picture that can be decoded")
    return _with(error, Symptom.UNDECODABLE)


def undecodable(name: str, packets: int) -> SourceError:
    """Return the error for a stream of which so many packets in a row could not be decoded."""
    error = SourceUnusable(f"{name}: {packets} packets in a row could not be decoded")
    return _with(error, Symptom.UNDECODABLE)


def _with(error: SourceError, symptom: Symptom) -> SourceError:
    error.symptom = symptom
    return error


_Words = Callable[[Exception, Asked], SourceError | None]
"""Returns what to say, or None where it is something else."""


def _said(
    kind: type[SourceError], text: str, hint: str = "", symptom: Symptom | None = None
) -> _Words:
    """Return words that are always the same; `{name}` stands for the source."""

    def words(_error: Exception, asked: Asked) -> SourceError:
        found = kind(text.replace("{name}", asked.shown), hint=hint)
        return _with(found, symptom) if symptom else found

    return words


def _unusable_url(_error: Exception, asked: Asked) -> SourceError | None:
    if asked.scheme not in _WITH_HOST or lacks_encoding(asked.url):
        return None
    try:
        parts = urlsplit(asked.url)
        _ = parts.port
    except ValueError:
        what = "its port is no number from 1 to 65535, or its host no address"
        return SourceUnusable(f"{asked.shown}: {what}", hint=_EXAMPLE.format(asked.scheme))
    if parts.hostname:
        return None
    return SourceUnusable(f"{asked.shown} names no host", hint=_EXAMPLE.format(asked.scheme))


def _unauthorized(_error: Exception, asked: Asked) -> SourceError:
    if has_login(asked.url):
        hint = f"check both; {HINT}"
        return SourceUnusable(f"{asked.shown}: wrong user or password (401)", hint=hint)
    hint = "put user:password@ before the host in the URL"
    return SourceUnusable(f"{asked.shown} asks for a user and a password (401)", hint=hint)


def _unencoded(_error: Exception, asked: Asked) -> SourceError | None:
    if not lacks_encoding(asked.url):
        return None
    text = f"{asked.shown}: no clear host: the password has a / ? or # in it"
    return SourceUnusable(text, hint=HINT)


def _silent(_error: Exception, asked: Asked) -> SourceError | None:
    if asked.scheme not in _LISTENING:
        return None
    hint = "does the sender send to this machine and port? a firewall may drop it"
    return SourceUnreachable(f"{asked.shown}: nothing arrives there", hint=hint)


def _not_media(_error: Exception, asked: Asked) -> SourceError:
    kind = SourceUnreachable if asked.live else SourceUnusable
    text = f"{asked.shown} is not a video that can be read"
    if asked.scheme in ("rtsp", "rtsps"):
        text = f"{asked.shown}: no valid RTSP answer"
    return _with(kind(text), Symptom.NOT_MEDIA)


def _broken(error: Exception, asked: Asked) -> SourceError:
    closed = isinstance(error, EOFError | ConnectionResetError | BrokenPipeError)
    why = "the server closed the connection" if closed and asked.scheme else describe(error)
    return _with(SourceUnreachable(f"{asked.shown}: {why}"), Symptom.BROKEN)


def _unknown_protocol(_error: Exception, asked: Asked) -> SourceError:
    if not asked.scheme:
        text = f"{asked.shown} looks like a URL, but FFmpeg knows no such protocol"
        return SourceUnusable(text, hint="is it a file? give its whole path, or put ./ before it")
    near = get_close_matches(asked.scheme, _SCHEMES, n=1)
    hint = f"did you mean {near[0]}://" if near else f"it reads {', '.join(_SCHEMES)}"
    return SourceUnusable(
        f"{asked.shown}: FFmpeg as installed does not know the protocol {asked.scheme!r}",
        hint=_INSTEAD_OF.get(asked.scheme, hint),
    )


def _invalid(error: Exception, asked: Asked) -> SourceError:
    text = f"{asked.shown} cannot be opened: {describe(error)}"
    return _with(SourceUnusable(text, hint="see [source]"), Symptom.INVALID)


def _unknown_format(error: Exception, asked: Asked) -> SourceError:
    wanted = str(error).rpartition(" ")[2].strip("'")
    near = get_close_matches(wanted, {*av.formats_available, "v4l2", "lavfi"}, n=1)
    hint = f'did you mean format = "{near[0]}"' if near else "leave [source] format empty"
    return SourceUnusable(f"{asked.shown} cannot be opened: {describe(error)}", hint=hint)


def _missing(_error: Exception, asked: Asked) -> SourceError:
    if asked.url.startswith("/dev/"):
        hint = f"plug it in; {DEVICES}"
        found: SourceError = SourceUnreachable(f"there is no device {asked.shown}", hint=hint)
    elif asked.live:
        found = SourceUnreachable(f"there is no file {asked.shown}")
    else:
        found = SourceUnusable(f"there is no file {asked.shown}", hint="see [source]")
    return _with(found, Symptom.MISSING)


def _untransported(_error: Exception, asked: Asked) -> SourceError | None:
    """Explain status 461, for which FFmpeg says that the protocol is not supported."""
    if asked.scheme not in ("rtsp", "rtsps"):
        return None
    by = asked.options.get("rtsp_transport", "")
    if by not in ("tcp", "udp"):
        text = f"{asked.shown}: the camera offers no transport that FFmpeg speaks (461)"
        return SourceUnusable(text, hint="see the transport in the camera's settings")
    only, other = ("UDP", "udp") if by == "tcp" else ("TCP", "tcp")
    hint = f'set options = {{ rtsp_transport = "{other}" }} in [source]'
    return SourceUnusable(f"{asked.shown}: the camera speaks {only} only", hint=hint)


def _by_number(error: Exception, asked: Asked) -> SourceError | None:
    number = getattr(error, "errno", None)
    words = _NUMBERS.get(number) if isinstance(number, int) else None
    return words(error, asked) if words else None


_MOUNT: Final = "mount the folder, and give the file's path"
_EXAMPLE: Final = "write it like {}://192.168.1.2:8554/path"
_WITH_HOST: Final = {"rtsp", "rtsps", "http", "https", "rtmp", "rtmps"}
_NO_WEBRTC: Final = "a source is not read over WebRTC: give the camera's RTSP URL"
_INSTEAD_OF: Final = {
    **dict.fromkeys(("sftp", "ssh", "scp", "smb", "cifs", "nfs", "dav", "davs"), _MOUNT),
    **dict.fromkeys(("webrtc", "whep", "whip"), _NO_WEBRTC),
    "onvif": "give the RTSP URL that the camera's ONVIF profile names",
    "v4l2": "give the device alone, such as /dev/video0",
    "ndi": "let the sender offer RTSP or SRT",
}
"""What to do about protocols that people try and FFmpeg may lack."""
_SCHEMES: Final = (
    "rtsp", "rtsps", "http", "https", "srt", "udp", "rtp", "rtmp", "rtmps", "tcp", "file",
)  # fmt: skip
_NUMBERS: Final[Mapping[int, _Words]] = {
    errno.EHOSTUNREACH: _said(
        SourceUnreachable, "{name}: the host cannot be reached", "is it on, and in this network?"
    ),
    errno.ENETUNREACH: _said(
        SourceUnreachable, "{name}: no network leads to the host", "is the network up?"
    ),
    errno.EADDRINUSE: _said(
        SourceUnreachable,
        "{name}: another program listens at this port",
        "end that program, or use another port",
    ),
    errno.EADDRNOTAVAIL: _said(
        SourceUnusable,
        "{name}: this machine has no such address",
        "to receive, give an address of this machine, or 0.0.0.0",
    ),
    errno.EPROTONOSUPPORT: _untransported,
    errno.EISDIR: _said(
        SourceUnusable, "{name} is a folder, not a file", "name a file in it", Symptom.FOLDER
    ),
    errno.ENOTDIR: _said(SourceUnusable, "{name}: a part of its path is no folder", "see [source]"),
    errno.ELOOP: _said(SourceUnusable, "{name}: its links lead in a circle", "see [source]"),
    errno.ENAMETOOLONG: _said(
        SourceUnusable, "{name}: this name is too long for a file", "see [source]"
    ),
    errno.EBUSY: _said(
        SourceUnreachable, "{name} is in use by another program", "end it", Symptom.BUSY
    ),
    errno.ENOTTY: _said(SourceUnusable, "{name} is not a capture device", DEVICES),
    errno.ENODEV: _said(SourceUnreachable, "{name}: there is no such device", DEVICES),
    errno.ENXIO: _said(SourceUnreachable, "{name}: there is no such device", DEVICES),
}
_Kinds = type[Exception] | tuple[type[Exception], ...]
_NO_ANSWER: Final = (av.error.TimeoutError, av.error.ExitError)
_WORDS: Final[tuple[tuple[_Kinds, _Words], ...]] = (
    (Exception, _unusable_url),
    (av.error.HTTPUnauthorizedError, _unauthorized),
    (
        av.error.HTTPForbiddenError,
        _said(
            SourceUnusable,
            "{name} refuses access (403)",
            "may this user see it? some cameras lock a user out for minutes",
        ),
    ),
    (
        av.error.HTTPNotFoundError,
        _said(
            SourceUnreachable,
            "{name}: the server has nothing at this path (404)",
            "check the path; it is tried again",
        ),
    ),
    (
        av.error.HTTPBadRequestError,
        _said(
            SourceUnreachable,
            "{name}: the server does not understand the request (400)",
            "check protocol, port and path",
        ),
    ),
    (
        av.error.HTTPServerError,
        _said(
            SourceUnreachable,
            "{name}: the server failed (5xx)",
            "it is tried again",
            Symptom.STATUS,
        ),
    ),
    (
        (av.error.HTTPError, av.error.HTTPClientError),
        _said(
            SourceUnreachable, "{name}: the server refuses the request (4xx)", "", Symptom.STATUS
        ),
    ),
    (av.error.ProtocolNotFoundError, _unknown_protocol),
    ((compat.INVALID_ARGUMENT, OSError), _unencoded),
    (
        av.error.ConnectionRefusedError,
        _said(
            SourceUnreachable,
            "{name}: connection refused: nothing listens there",
            "check the port, and whether the server runs",
        ),
    ),
    (av.error.FileNotFoundError, _missing),
    (
        av.error.PermissionError,
        _said(
            SourceUnusable,
            "{name} may not be read by this user",
            "see [source]",
            Symptom.FORBIDDEN,
        ),
    ),
    (Exception, _by_number),
    ((*_NO_ANSWER, OSError), _silent),
    (
        _NO_ANSWER,
        _said(SourceUnreachable, "{name}: no answer in time", "is it on and reachable?"),
    ),
    (av.error.InvalidDataError, _not_media),
    (
        (
            compat.INVALID_ARGUMENT,
            av.error.DemuxerNotFoundError,
            av.error.DecoderNotFoundError,
            av.error.OptionNotFoundError,
        ),
        _invalid,
    ),
    ((av.error.FFmpegError, OSError), _broken),
    (ValueError, _unknown_format),  # of PyAV itself
)
"""The first that fits and has something to say; so the more exact ones come first."""
