"""How the ffmpeg program captures a sound device, or reads any other sound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relayd.errors import SourceUnreachable, SourceUnusable
from relayd.process import pactl
from relayd.sound.blocks import BLOCK_BYTES, RATE
from relayd.source.addresses import ffmpeg_url, is_local, path_of
from relayd.source.kinds import SourceKind, guess
from relayd.urls.safe import MediaUrl

PULSE: Final = "pulse:"
ALSA: Final = "alsa:"
OWN_MICROPHONES: Final = "relayd_"
"""How the names of relayd's microphones begin in the sound server."""
_PACTL_LIMIT: Final = 1.5
"""s for an answer of the sound server, which takes some 10 ms; a stop waits for it."""
Run = Callable[..., tuple[int, str, str]]
"""As relayd.process.pactl.run."""
NO_DEVICE: Final = ("auto", "none")
"""Settings that ask for no capture of its own: the source's own sound, or silence."""
_RAW: Final = ("-vn", "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-flush_packets", "1", "pipe:1")
"""Sound as it is inside relayd, written at once."""
_SHORT_PROBE: Final = ("-fflags", "nobuffer", "-probesize", "32768", "-analyzeduration", "500000")


@dataclass(frozen=True, slots=True)
class VoicePlan:
    """What ffmpeg is called with."""

    attempts: tuple[tuple[str, ...], ...]
    """Arguments, and others to try when these fail at once."""
    url: str
    """What ffmpeg is given, as it may appear in its messages."""
    name: str
    """The same for people, without secrets."""
    part: str
    """The component of ffmpeg whose messages say most."""
    shows_secret: bool = False
    """Whether the arguments hold a secret, which every user of this machine can read."""


def plan_voice(source: str) -> VoicePlan:
    """Return how to read `[sound] source`: pulse:NAME, alsa:DEVICE, or a URL of FFmpeg's."""
    if source.startswith(PULSE):
        device = source.removeprefix(PULSE) or "default"
        asked = ("-f", "pulse", "-name", "relayd", "-stream_name", "voice")
        form = ("-sample_rate", str(RATE), "-channels", "1", "-fragment_size", str(BLOCK_BYTES))
        return VoicePlan(((*asked, *form, "-i", device, *_RAW),), device, source, "pulse")
    if source.startswith(ALSA):
        device = source.removeprefix(ALSA) or "default"
        # A device without plug-ins has so many channels as it has.
        attempts = tuple(
            ("-f", "alsa", "-sample_rate", str(RATE), "-channels", count, "-i", device, *_RAW)
            for count in ("1", "2")
        )
        return VoicePlan(attempts, device, source, "alsa")
    return _plan_url(source)


def require_foreign(plan: VoicePlan, run: Run = pactl.run) -> None:
    """Raise SourceError where the sound server would hand out relayd's own sound, or the speakers'.

    A user may have made the relayd microphone the default for all programs. Without any
    microphone the default is what the speakers play, so that callers would hear themselves.
    """
    if plan.part != "pulse":
        return
    require_voice(plan, plan.url if plan.url != "default" else _default_source(plan, run))


def require_voice(plan: VoicePlan, source: str) -> None:
    """Raise SourceError where the sound server's `source` is no voice that the plan asks for."""
    if source.startswith(OWN_MICROPHONES):
        raise SourceUnusable(
            f"{plan.name}: {source} is relayd's own microphone",
            hint="name another one: `pactl list short sources` lists them",
        )
    if source.endswith(".monitor") and not _may_be_monitor(plan.url):
        raise SourceUnreachable(f"{plan.name}: there is no microphone")


def _may_be_monitor(device: str) -> bool:
    """Whether the user may have asked for what the speakers play: by name, number or @NAME@."""
    return device.endswith(".monitor") or device.isdigit() or device.startswith("@")


def _default_source(plan: VoicePlan, run: Run) -> str:
    """Return the name of the sound server's default source; empty where pactl cannot tell.

    Raises SourceUnreachable for a server that hangs: it might hand out what it should not.
    """
    try:
        status, name, _ = run("get-default-source", within=_PACTL_LIMIT)
    except TimeoutError as fault:
        raise SourceUnreachable(f"{plan.name}: the sound server does not answer") from fault
    except OSError:
        return ""
    return name.strip() if status == 0 else ""


def _plan_url(source: str, kind_of: Callable[[str], SourceKind] = guess) -> VoicePlan:
    url, name = ffmpeg_url(source), str(MediaUrl(source))
    is_file = is_local(url) and kind_of(url) is SourceKind.FILE
    how = ("-re", "-stream_loop", "-1") if is_file else _SHORT_PROBE
    url = path_of(url) if is_file else url
    secret = name != source and not is_file
    return VoicePlan(((*how, "-i", url, *_RAW),), url, name, "ffmpeg", shows_secret=secret)
