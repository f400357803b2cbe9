"""Which kinds of link there are, and whether the library below one is installed."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from relayd.errors import LibraryUnavailable
from relayd.frames import I420
from relayd.rtc.link import Link, LinkEvent, LinkTarget

MakeLink = Callable[[LinkTarget, Callable[[I420, float], None], Callable[[LinkEvent], None]], Link]
"""Makes a link from its target, `on_picture` and `on_event`; ConfigError for a bad target."""


@dataclass(frozen=True, slots=True)
class _Make:
    """Where a kind of link lives, and what it stands on."""

    module: str
    name: str
    library: str
    mend: str


_MAKES = {
    "webrtc": _Make("relayd.rtc.webrtc", "WebRtcLink", "aiortc", "pip install 'relayd[webrtc]'"),
}


def require_link(kind: str) -> None:
    """Raise LibraryUnavailable where a link of this kind cannot work; loads nothing."""
    make = _make_of(kind)
    if find_spec(make.library) is None:
        raise LibraryUnavailable(f"rtc.kind = {kind!r} needs {make.library}", mend=make.mend)


def load_link(kind: str) -> MakeLink:
    """Import the link of this kind, with the library below it; LibraryUnavailable if that fails."""
    make = _make_of(kind)
    try:
        made: MakeLink = getattr(import_module(make.module), make.name)
    except ImportError as fault:
        raise LibraryUnavailable(
            f"rtc.kind = {kind!r} needs {fault.name}", mend=make.mend
        ) from fault
    return made


def _make_of(kind: str) -> _Make:
    if kind not in _MAKES:
        known = " or ".join(f'"{known}"' for known in _MAKES)
        raise LibraryUnavailable(
            f'rtc.kind = "{kind}": this version of relayd has no such link', mend=f"use {known}"
        )
    return _MAKES[kind]
