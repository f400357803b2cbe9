"""Why a source cannot be read, once somebody has looked: facts in, words out.

Pure functions over what relayd.source.inspection found out besides FFmpeg.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from relayd.errors import SourceError, SourceUnreachable, SourceUnusable
from relayd.media import contents
from relayd.media.contents import Boxes
from relayd.media.refusals import no_decoder
from relayd.media.symptoms import Asked, Symptom
from relayd.urls.encoding import HINT, lacks_encoding
from relayd.urls.quoting import plain_name

_FASTSTART: Final = "ffmpeg -i in.mp4 -c copy -movflags +faststart out.mp4"


class Contact(Enum):
    """How far a server was reached by another way than FFmpeg's."""

    UNKNOWN = auto()
    """Not tried, or without a result."""
    NO_SUCH_HOST = auto()
    """Its name has no address."""
    UNTRUSTED = auto()
    """Its TLS certificate could not be verified."""
    NO_TLS = auto()
    """TLS was expected, and something else answered."""
    TLS = auto()
    """Plain text was expected, and it speaks TLS."""
    WEB_SERVER = auto()
    """RTSP was expected, and it answers in HTTP."""
    SILENT = auto()
    """It accepts connections and answers nothing."""
    ELSEWHERE = auto()
    """It redirects to another server, which was not asked."""
    CIRCLE = auto()
    """It redirects to itself again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a look at the source has shown; the defaults mean that nothing is known."""

    contact: Contact = Contact.UNKNOWN
    reason: str = ""
    """Why a certificate is not trusted."""
    status: int = 0
    """Of an answer over HTTP."""
    content_type: str = ""
    start: bytes | None = None
    """The first bytes of file or answer, up to contents.START."""
    boxes: Boxes = field(default_factory=Boxes)
    has_ranges: bool = True
    """Whether the server can send from the middle of a file."""
    alike: tuple[str, ...] = ()
    """Files with a similar name; for a folder, those in it."""
    blocked: str = ""
    """The folder that may not be entered."""
    user: str = ""
    """The user that this process runs as."""
    is_device: bool = False


def explained(error: SourceError, asked: Asked, facts: Facts) -> SourceError:
    """Return an error that names the cause, or the same one where the facts do not show it."""
    for symptoms, words in _CAUSES:
        if error.symptom in symptoms and (found := words(error, asked, facts)) is not None:
            return found
    return error


_Words = Callable[[SourceError, Asked, Facts], SourceError | None]


def _contact(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    contact, name, scheme = facts.contact, asked.shown, asked.scheme
    if contact is Contact.NO_SUCH_HOST and lacks_encoding(asked.url):
        return SourceUnusable(f"{name}: no such host: is it a part of the password?", hint=HINT)
    if contact is Contact.UNKNOWN:
        return None
    kind, text, hint = _CONTACTS[contact]
    other = scheme.removesuffix("s") if contact is Contact.NO_TLS else f"{scheme}s"
    message = f"{name}: {text.format(reason=facts.reason)}"
    return kind(message, hint=hint.format(scheme=scheme, other=other))


_CONTACTS: Final[dict[Contact, tuple[type[SourceError], str, str]]] = {
    Contact.NO_SUCH_HOST: (
        SourceUnreachable,
        "the host's name is unknown (DNS)",
        "check the name, or give the host's address instead",
    ),
    Contact.UNTRUSTED: (
        SourceUnusable,
        "the server's certificate is not trusted: {reason}",
        'name its CA in [source] options: ca_file = "/path/ca.pem"',
    ),
    Contact.NO_TLS: (
        SourceUnusable,
        "the server speaks no TLS at this port",
        "try {other}:// instead of {scheme}://",
    ),
    Contact.TLS: (
        SourceUnusable,
        "the server expects TLS at this port",
        "try {other}:// instead of {scheme}://",
    ),
    Contact.WEB_SERVER: (
        SourceUnusable,
        "a web server answers at this port, not RTSP",
        "most cameras have RTSP at port 554",
    ),
    Contact.SILENT: (
        SourceUnreachable,
        "the server takes the connection and does not answer",
        "check protocol and port",
    ),
    Contact.ELSEWHERE: (
        SourceUnusable,
        "the server redirects to another one",
        "give the URL that it leads to",
    ),
    Contact.CIRCLE: (
        SourceUnusable,
        "the server redirects in a circle",
        "check the path, and whether it wants a login",
    ),
}
"""What each contact means: error, what to say, hint."""


def _status(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    status, name = facts.status, asked.shown
    if status >= 500:  # noqa: PLR2004 - server errors of HTTP
        return SourceUnreachable(f"{name}: the server failed ({status})", hint="it is tried again")
    if status >= 400:  # noqa: PLR2004 - refusals of HTTP
        hint = _STATUS_HINTS.get(status, "")
        return SourceUnreachable(f"{name}: the server refuses the request ({status})", hint=hint)
    return None


_STATUS_HINTS: Final = {
    407: "a proxy wants a user and a password",
    410: "what was there is gone: check the path",
    429: "it had too many requests: it is tried again",
}


def _content(error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    if facts.start is None:
        return None
    if not facts.start:
        return _empty(error, asked, facts)
    what = contents.kind_of(facts.start, facts.content_type)
    if what == contents.DASH:
        text = f"{asked.shown} is DASH, which needs a build of FFmpeg with libxml2"
        return SourceUnusable(text, hint="give its HLS or RTSP URL instead")
    if what == contents.PLAYLIST:
        return _playlist(asked, facts)
    # Of a page without Content-Length FFmpeg says that reading it failed.
    is_seen = error.symptom == Symptom.NOT_MEDIA or what == contents.WEB_PAGE
    return _not_video(asked, facts, what) if is_seen else None


def _not_video(asked: Asked, facts: Facts, what: str) -> SourceError | None:
    if not what:
        return None
    if not asked.scheme.startswith("http"):
        return SourceUnusable(f"{asked.shown} is {what}, not video", hint="see [source]")
    kind = f" ({facts.content_type})" if facts.content_type else ""
    hint = "open it in a browser: it may be a login or the camera's own page"
    return SourceUnusable(
        f"{asked.shown}: the server sent {what}{kind}, not video",
        hint=hint if what == contents.WEB_PAGE else "check the path",
    )


def _empty(error: SourceError, asked: Asked, facts: Facts) -> SourceError:
    if asked.scheme.startswith("http"):
        return SourceUnreachable(
            f"{asked.shown}: the server sent an empty answer", hint="check the path"
        )
    if facts.is_device:
        return SourceUnusable(f"{asked.shown} gives no data", hint="see [source]")
    kind = SourceUnreachable if error.retryable else SourceUnusable
    return kind(f"{asked.shown} is an empty file", hint="see [source]")


def _playlist(asked: Asked, facts: Facts) -> SourceError | None:
    start = facts.start or b""
    if method := contents.playlist_encryption(start):
        text = f"{asked.shown} is encrypted ({method}); only its own player can show it"
        return SourceUnusable(text, hint="give a source without copy protection")
    if b"#EXTINF" not in start and b"#EXT-X-STREAM-INF" not in start:
        text = f"{asked.shown}: the playlist names no segment yet"
        return SourceUnreachable(text, hint="it is tried again")
    hint = "check that the server still has what the playlist names"
    return SourceUnreachable(f"{asked.shown}: no segment of the playlist can be read", hint=hint)


def _index(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    if facts.boxes.is_still:
        text = f"{asked.shown} is cut off: the picture is not whole"
        hint = "copy it again"
        return SourceUnusable(text, hint=hint) if facts.boxes.is_cut_off else None
    if facts.boxes.is_cut_off:
        text = f"{asked.shown} is cut off: its index (moov) is missing at the end"
        return SourceUnusable(text, hint="copy or record it again")
    if not facts.boxes.is_index_last or facts.has_ranges:
        return None
    text = f"{asked.shown}: its index (moov) is at its end, and the server does not allow ranges"
    return SourceUnusable(text, hint=f"put the index first: {_FASTSTART}")


def _no_index(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    boxes = facts.boxes
    if not boxes.is_index_last or boxes.index or boxes.is_still or asked.scheme.startswith("http"):
        return None
    text = f"{asked.shown}: its index (moov) is missing: the recording was not ended properly"
    return SourceUnusable(text, hint="record it again, or try to repair it with untrunc")


def _codec(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    codec = contents.mp4_codec(facts.boxes.index) or contents.matroska_codec(facts.start or b"")
    return no_decoder(asked.shown, codec) if codec else None


def _undecodable(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    if contents.is_animated_webp(facts.start or b""):
        text = f"{asked.shown}: animated WebP is not supported by FFmpeg"
        return SourceUnusable(text, hint="convert it to GIF, APNG or MP4")
    is_encrypted = contents.is_encrypted_mp4(facts.boxes.index)
    if is_encrypted or contents.is_encrypted_matroska(facts.start or b""):
        hint = "give a file without copy protection"
        return SourceUnusable(f"{asked.shown} is encrypted", hint=hint)
    if facts.boxes.index and not facts.boxes.has_pictures and not asked.scheme:
        text = f"{asked.shown} has no pictures: it is only the header of a stream in segments"
        return SourceUnusable(text, hint="give its playlist (.m3u8) instead")
    return None


def _invalid(error: SourceError, asked: Asked, _facts: Facts) -> SourceError | None:
    if asked.url.startswith("lavfi:"):
        return SourceUnusable(error.message, hint="check the filter's name and its values")
    if not asked.options:
        return None
    names = ", ".join(plain_name(name) for name in asked.options)
    return SourceUnusable(error.message, hint=f"check the values of [source] options: {names}")


def _missing(error: SourceError, _asked: Asked, facts: Facts) -> SourceError | None:
    if not facts.alike:
        return None
    return type(error)(error.message, hint=f"did you mean {' or '.join(facts.alike)}")


def _folder(error: SourceError, _asked: Asked, facts: Facts) -> SourceError | None:
    if not facts.alike:
        return None
    return type(error)(error.message, hint=f"name a file in it, such as {facts.alike[0]}")


def _forbidden(_error: SourceError, asked: Asked, facts: Facts) -> SourceError | None:
    who = f"user {facts.user}" if facts.user else "this user"
    if facts.blocked:
        text = f"{asked.shown} may not be read: {who} may not enter the folder {facts.blocked}"
        return SourceUnusable(text, hint=f"allow it: chmod o+x {facts.blocked}")
    hint = "change its owner or mode (chown, chmod)"
    return SourceUnusable(f"{asked.shown} may not be read by {who}", hint=hint)


_CAUSES: Final[tuple[tuple[frozenset[str], _Words], ...]] = (
    (frozenset({Symptom.INVALID}), _invalid),
    (frozenset({Symptom.MISSING}), _missing),
    (frozenset({Symptom.FOLDER}), _folder),
    (frozenset({Symptom.FORBIDDEN}), _forbidden),
    (frozenset({Symptom.STATUS, Symptom.NOT_MEDIA, Symptom.BROKEN}), _status),
    (frozenset({Symptom.NO_DECODER}), _codec),
    (frozenset({Symptom.UNDECODABLE}), _undecodable),
    (frozenset({Symptom.NOT_MEDIA, Symptom.BROKEN}), _contact),
    (frozenset({Symptom.NOT_MEDIA, Symptom.BROKEN}), _index),
    (frozenset({Symptom.NOT_MEDIA, Symptom.BROKEN}), _content),
    (frozenset({Symptom.NOT_MEDIA}), _no_index),
)
"""The first that fits and has something to say."""
