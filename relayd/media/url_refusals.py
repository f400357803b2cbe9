"""What to say of a URL that cannot work, whatever FFmpeg's error: pure functions.

Each returns None where the URL is not what is wrong.
"""

from difflib import get_close_matches
from typing import Final
from urllib.parse import urlsplit

from relayd.errors import SourceError, SourceUnusable
from relayd.media.symptoms import Asked
from relayd.urls.encoding import HINT, lacks_encoding
from relayd.urls.slips import slip_in

LISTENING: Final = {"udp", "rtp", "srtp"}
"""Schemes of which data just arrives, or does not."""
_MOUNT: Final = "mount the folder, and give the file's path"
_EXAMPLE: Final = "write it like {}://192.168.1.2:8554/path"
_WITHOUT_PORT: Final = {"udp", "rtp", "srtp", "tcp"}
"""Schemes without a default port."""
_WITH_HOST: Final = {"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", *_WITHOUT_PORT}
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


def unusable_url(asked: Asked) -> SourceError | None:
    """Tell a URL that lacks its host or port, or whose port is no number."""
    if asked.scheme not in _WITH_HOST or lacks_encoding(asked.url):
        return None
    try:
        parts = urlsplit(asked.url)
        _ = parts.port
    except ValueError:
        what = "its port is no number from 1 to 65535, or its host no address"
        return SourceUnusable(f"{asked.shown}: {what}", hint=_EXAMPLE.format(asked.scheme))
    lacks = "" if parts.hostname or asked.scheme in LISTENING else "host"
    lacks = lacks or ("port" if asked.scheme in _WITHOUT_PORT and parts.port is None else "")
    if not lacks:
        return None
    return SourceUnusable(f"{asked.shown} names no {lacks}", hint=_EXAMPLE.format(asked.scheme))


def slip(asked: Asked) -> SourceError | None:
    """Tell a text that is neither a URL nor a path."""
    if not (hint := slip_in(asked.url)):
        return None
    return SourceUnusable(f"{asked.shown} is neither a URL nor a file", hint=hint)


def unencoded(asked: Asked) -> SourceError | None:
    """Tell a password whose characters end the host too early."""
    if not lacks_encoding(asked.url):
        return None
    text = f"{asked.shown}: no clear host: the password has a / ? or # in it"
    return SourceUnusable(text, hint=HINT)


def unknown_protocol(asked: Asked) -> SourceError:
    """Tell a protocol that FFmpeg does not know, with what was probably meant."""
    if not asked.scheme:
        text = f"{asked.shown} looks like a URL, but FFmpeg knows no such protocol"
        return SourceUnusable(text, hint="is it a file? give its whole path, or put ./ before it")
    near = get_close_matches(asked.scheme, _SCHEMES, n=1)
    hint = f"did you mean {near[0]}://" if near else f"it reads {', '.join(_SCHEMES)}"
    return SourceUnusable(
        f"{asked.shown}: FFmpeg as installed does not know the protocol {asked.scheme!r}",
        hint=_INSTEAD_OF.get(asked.scheme, hint),
    )
