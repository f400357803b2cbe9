"""Whether the library of a link is there, found out without loading it."""

from importlib.util import find_spec

from relayd.errors import LibraryUnavailable
from relayd.rtc.link import LinkKind


def require_link(kind: LinkKind) -> None:
    """Raise LibraryUnavailable, with the mend, where a link of this kind cannot work."""
    if kind == "agora":
        raise LibraryUnavailable(
            'rtc.kind = "agora": this version has no Agora link', mend='set [rtc] kind = "webrtc"'
        )
    if find_spec("aiortc") is None:
        raise LibraryUnavailable(
            'rtc.kind = "webrtc": aiortc is not installed', mend='pip install "relayd[webrtc]"'
        )
