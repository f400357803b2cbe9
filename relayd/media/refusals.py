"""What to say when FFmpeg cannot open or read a source, from its error and the URL alone.

Pure functions. FFmpeg says "Input/output error" for a web page, an unknown host and a certificate
alike: where several causes are possible the error has a `symptom`, and relayd.media.causes names
the cause once somebody has looked.
"""

import errno
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Final

import av
import av.error

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.media import compat
from relayd.media.fit import describe
from relayd.media.symptoms import Asked, Symptom, with_symptom
from relayd.media.url_refusals import LISTENING, slip, unencoded, unknown_protocol, unusable_url
from relayd.urls.encoding import HINT, has_login

_STILLS: Final = {"svg", "jpegxl", "jpegxs", "photocd"}
"""Formats of still pictures whose decoders a build of FFmpeg may lack."""
NOTHING_ARRIVES: Final = "does the sender send to this machine and port? a firewall may drop it"


def refusal(error: Exception, asked: Asked) -> SourceError:
    """Return the error to raise when FFmpeg could not open a source."""
    for kinds, words in _WORDS:
        if isinstance(error, kinds) and (found := words(error, asked)) is not None:
            return found
    return SourceUnreachable(f"{asked.shown}: {describe(error)}")


def read_failure(error: Exception, name: str) -> SourceError:
    """Return the error to raise when reading an open source failed."""
    return with_symptom(SourceLost(f"{name}: {describe(error)}"), Symptom.BROKEN)


def no_video(name: str, kinds: set[str]) -> SourceError:
    """Return the error for a source that holds only streams of these kinds, such as `audio`."""
    alone = ": it has sound alone" if "audio" in kinds else ""
    return SourceUnusable(f"{name} has no video{alone}", hint="give a source with a picture")


def no_decoder(name: str, codec: str) -> SourceError:
    """Return the error for a video without a decoder; `codec` is its name, if known."""
    what = f"{codec}, the format of {name}" if codec else f"the video of {name}"
    hint = "convert it to PNG" if codec in _STILLS else "convert it, for example to H.264"
    error = SourceUnusable(f"FFmpeg as installed has no decoder for {what}", hint=hint)
    return with_symptom(error, Symptom.NO_DECODER)


def not_joined(name: str) -> SourceError:
    """Return the error for a picture in tiles, as of a HEIC file, that cannot be put together."""
    return SourceUnusable(
        f"{name} is a picture in tiles that cannot be joined", hint="convert it to JPEG or PNG"
    )


def no_picture(name: str) -> SourceError:
    """Return the error for a file of which no packet could be decoded."""
    error = SourceUnusable(f"{name} contains no picture that can be decoded")
    return with_symptom(error, Symptom.UNDECODABLE)


def undecodable(name: str, packets: int) -> SourceError:
    """Return the error for a stream of which so many packets in a row could not be decoded."""
    error = SourceUnusable(f"{name}: {packets} packets in a row could not be decoded")
    return with_symptom(error, Symptom.UNDECODABLE)


_Words = Callable[[Exception, Asked], SourceError | None]
"""Returns what to say, or None where it is something else."""


def _said(
    kind: type[SourceError], text: str, hint: str = "", symptom: Symptom | None = None
) -> _Words:
    """Return words that are always the same; `{name}` stands for the source."""

    def words(_error: Exception, asked: Asked) -> SourceError:
        found = kind(text.replace("{name}", asked.shown), hint=hint)
        return with_symptom(found, symptom) if symptom else found

    return words


def _of_url(judge: Callable[[Asked], SourceError | None]) -> _Words:
    return lambda _error, asked: judge(asked)


def _unauthorized(_error: Exception, asked: Asked) -> SourceError:
    if has_login(asked.url):
        hint = f"check both; {HINT}"
        return SourceUnusable(f"{asked.shown}: wrong user or password (401)", hint=hint)
    hint = "put user:password@ before the host in the URL"
    return SourceUnusable(f"{asked.shown} asks for a user and a password (401)", hint=hint)


def _silent(_error: Exception, asked: Asked) -> SourceError | None:
    if asked.scheme not in LISTENING:
        return None
    return SourceUnreachable(f"{asked.shown}: nothing arrives there", hint=NOTHING_ARRIVES)


def _not_media(_error: Exception, asked: Asked) -> SourceError:
    kind = SourceUnreachable if asked.live else SourceUnusable
    text = f"{asked.shown} is not a video that can be read"
    if asked.scheme in ("rtsp", "rtsps"):
        text = f"{asked.shown}: no valid RTSP answer"
    return with_symptom(kind(text), Symptom.NOT_MEDIA)


def _broken(error: Exception, asked: Asked) -> SourceError:
    closed = isinstance(error, EOFError | ConnectionResetError | BrokenPipeError)
    why = "the server closed the connection" if closed and asked.scheme else describe(error)
    kind = SourceUnreachable if asked.live or asked.scheme else SourceUnusable
    return with_symptom(kind(f"{asked.shown}: {why}"), Symptom.BROKEN)


def _invalid(error: Exception, asked: Asked) -> SourceError:
    text = f"{asked.shown} cannot be opened: {describe(error)}"
    return with_symptom(SourceUnusable(text, hint="see [source]"), Symptom.INVALID)


def _unknown_format(error: Exception, asked: Asked) -> SourceError:
    wanted = str(error).rpartition(" ")[2].strip("'")
    near = get_close_matches(wanted, {*av.formats_available, "v4l2", "lavfi"}, n=1)
    hint = f'did you mean format = "{near[0]}"' if near else "leave [source] format empty"
    return SourceUnusable(f"{asked.shown} cannot be opened: {describe(error)}", hint=hint)


def _missing(_error: Exception, asked: Asked) -> SourceError:
    if asked.url.startswith("/dev/"):
        hint = "plug it in; `relayd devices` lists those that are here"
        found: SourceError = SourceUnreachable(f"there is no device {asked.shown}", hint=hint)
    elif asked.live:
        found = SourceUnreachable(f"there is no file {asked.shown}")
    else:
        found = SourceUnusable(f"there is no file {asked.shown}", hint="see [source]")
    return with_symptom(found, Symptom.MISSING)


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
}
_Kinds = type[Exception] | tuple[type[Exception], ...]
_NO_ANSWER: Final = (av.error.TimeoutError, av.error.ExitError)
_WORDS: Final[tuple[tuple[_Kinds, _Words], ...]] = (
    (Exception, _of_url(unusable_url)),
    (
        (
            av.error.FileNotFoundError,
            av.error.ProtocolNotFoundError,
            av.error.ConnectionRefusedError,
            *_NO_ANSWER,
            compat.INVALID_ARGUMENT,
        ),
        _of_url(slip),
    ),
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
    (av.error.ProtocolNotFoundError, _of_url(unknown_protocol)),
    ((compat.INVALID_ARGUMENT, OSError), _of_url(unencoded)),
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
        (av.error.PatchWelcomeError, av.error.NotImplementedError),
        _said(
            SourceUnusable,
            "{name} uses a part of its format that FFmpeg does not support",
            "convert it, for example to H.264 in MP4",
        ),
    ),
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
