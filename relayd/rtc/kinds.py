"""The kinds of link, and whether the library of each is installed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from relayd.errors import LibraryUnavailable
from relayd.media.frames import I420
from relayd.process.environment import proxies
from relayd.rtc.agora import installation
from relayd.rtc.link import Link, LinkEvent, LinkKind, LinkTarget
from relayd.sound.blocks import Samples

MakeLink = Callable[
    [
        LinkTarget,
        Callable[[I420, float], None],
        Callable[[LinkEvent], None],
        Callable[[Samples, float], None],
    ],
    Link,
]
"""Makes a link from its target, `on_picture`, `on_event` and `on_sound`; ConfigError for a bad
target."""


@dataclass(frozen=True, slots=True)
class _Make:
    """Where a kind of link is implemented, and the library it needs."""

    module: str
    name: str
    library: str
    hint: str
    require: Callable[[], str]
    """Raises LibraryUnavailable, or returns the library's name and version; loads nothing."""
    environment: Callable[[], Mapping[str, str]] = dict
    """What its worker process needs in its environment."""


def _require_aiortc() -> str:
    if find_spec("aiortc") is None:
        raise _unavailable("webrtc", "aiortc")
    return f"aiortc {version('aiortc')}"


_MAKES: dict[LinkKind, _Make] = {
    "agora": _Make(
        module="relayd.rtc.agora.link",
        name="AgoraLink",
        library="agora-python-server-sdk",
        hint="relayd agora-install",
        require=lambda: str(installation.require()),
        environment=installation.worker_environment,
    ),
    "webrtc": _Make(
        module="relayd.rtc.webrtc.link",
        name="WebRtcLink",
        library="aiortc",
        hint="pip install 'relayd[webrtc]'",
        require=_require_aiortc,
        environment=proxies,  # WHIP and WHEP are HTTP
    ),
}


def require_link(kind: LinkKind) -> str:
    """Return the name and version of the library that this kind of link needs; loads nothing.

    Raises LibraryUnavailable if such a link cannot work.
    """
    return _MAKES[kind].require()


def worker_environment(kind: LinkKind) -> Mapping[str, str]:
    """Return the extra environment variables that a worker of this kind needs.

    Raises LibraryUnavailable if such a link cannot work.
    """
    return _MAKES[kind].environment()


def load_link(kind: LinkKind) -> MakeLink:
    """Import the link of this kind and its library; LibraryUnavailable if that fails."""
    make = _MAKES[kind]
    try:
        made: MakeLink = getattr(import_module(make.module), make.name)
    except ImportError as fault:
        raise _unavailable(kind, fault.name or make.library) from fault
    return made


def _unavailable(kind: LinkKind, library: str) -> LibraryUnavailable:
    return LibraryUnavailable(f"rtc.kind = {kind!r} needs {library}", hint=_MAKES[kind].hint)
