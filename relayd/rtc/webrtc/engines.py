"""Chooses the WebRTC engine, and loads it."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from relayd.errors import LibraryUnavailable
from relayd.rtc.webrtc.engine import EngineName, MakePeer

_ENGINES: dict[EngineName, tuple[str, str, str]] = {
    "libwebrtc": ("wrtc", "relayd.rtc.webrtc.engine_libwebrtc", "LibwebrtcPeer"),
    "aiortc": ("aiortc", "relayd.rtc.webrtc.engine_aiortc", "AiortcPeer"),
}
"""Of each engine, the best first: the library, and where its class is."""
_EXACT = {"wrtc": "0.1.0"}
"""Libraries that promise no stable API yet, with the one version that is used."""


def installed(wanted: str = "auto") -> Sequence[EngineName]:
    """Return the engines to use, the best first; loads nothing.

    `wanted` is an engine's name, or "auto" for whatever is installed. Raises LibraryUnavailable
    if there is none.
    """
    named = [name for name in _ENGINES if wanted in ("auto", name)]
    usable = [name for name in named if _is_installed(name)]
    if not usable:
        raise unavailable(wanted)
    return usable


def described(name: EngineName) -> str:
    """Name an installed engine's library and its version."""
    library, _, _ = _ENGINES[name]
    return f"{library} {version(library)}"


def load(name: EngineName) -> MakePeer:
    """Import an engine and its library; LibraryUnavailable if that fails."""
    library, module, made = _ENGINES[name]
    try:
        make: MakePeer = getattr(import_module(module), made)
    except ImportError as fault:
        raise unavailable(name, fault.name or library) from fault
    return make


def unavailable(wanted: str, library: str = "") -> LibraryUnavailable:
    """Return the error for an engine that is not there, with the command that installs it."""
    extra = "libwebrtc" if wanted == "libwebrtc" else "webrtc"
    needed = library or (_ENGINES[wanted][0] if wanted in _ENGINES else "aiortc")
    return LibraryUnavailable(
        f"rtc.kind = 'webrtc' needs {needed}", hint=f"pip install 'relayd[{extra}]'"
    )


def _is_installed(name: EngineName) -> bool:
    library, _, _ = _ENGINES[name]
    if find_spec(library) is None:
        return False
    try:
        return version(library) == _EXACT.get(library, version(library))
    except PackageNotFoundError:
        return False
