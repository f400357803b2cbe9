"""The kinds of link, and whether the library of each is installed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from relayd.errors import LibraryUnavailable
from relayd.media.frames import I420
from relayd.process.environment import proxies
from relayd.rtc.agora import installation
from relayd.rtc.link import Link, LinkEvent, LinkKind, LinkTarget
from relayd.rtc.webrtc import engines
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
    unavailable: Callable[[str], LibraryUnavailable]
    """Names the library that could not be imported, and what installs it."""
    require: Callable[[str], str]
    """Raises LibraryUnavailable, or returns the library's name and version; loads nothing."""
    load: Callable[[str], object]
    """Loads the library; LibraryUnavailable if that fails."""
    environment: Callable[[], Mapping[str, str]] = dict
    """What its worker process needs in its environment."""


def _agora_unavailable(library: str) -> LibraryUnavailable:
    return LibraryUnavailable(f"rtc.kind = 'agora' needs {library}", hint="relayd agora-install")


_MAKES: dict[LinkKind, _Make] = {
    "agora": _Make(
        module="relayd.rtc.agora.link",
        name="AgoraLink",
        unavailable=_agora_unavailable,
        require=lambda _engine: str(installation.require()),
        load=lambda _engine: None,  # with the module
        environment=installation.worker_environment,
    ),
    "webrtc": _Make(
        module="relayd.rtc.webrtc.link",
        name="WebRtcLink",
        unavailable=lambda library: engines.unavailable("auto", library),
        require=lambda engine: engines.described(engines.installed(engine)[0]),
        load=lambda engine: engines.load(engines.installed(engine)[0]),
        environment=proxies,  # WHIP and WHEP are HTTP
    ),
}


def require_link(kind: LinkKind, engine: str = "auto") -> str:
    """Return the name and version of the library that this kind of link needs; loads nothing.

    `engine`: of a webrtc link. Raises LibraryUnavailable if such a link cannot work.
    """
    return _MAKES[kind].require(engine)


def worker_environment(kind: LinkKind) -> Mapping[str, str]:
    """Return the extra environment variables that a worker of this kind needs.

    Raises LibraryUnavailable if such a link cannot work.
    """
    return _MAKES[kind].environment()


def load_link(kind: LinkKind, engine: str = "auto") -> MakeLink:
    """Import the link of this kind and its library; LibraryUnavailable if that fails."""
    make = _MAKES[kind]
    make.load(engine)
    try:
        made: MakeLink = getattr(import_module(make.module), make.name)
    except ImportError as fault:
        raise make.unavailable(fault.name or make.module) from fault
    return made
