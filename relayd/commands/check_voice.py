"""What `relayd check` hears of the user's own sound: its form, and how loud it is."""

import time
from collections.abc import Callable
from typing import Final

from relayd.clock import MonotonicClock
from relayd.commands.finding import Finding
from relayd.config.settings import SoundSettings
from relayd.media.sound import SoundFormat
from relayd.sound.blocks import BLOCK_SECONDS, OwnSound
from relayd.sound.level import SILENT, LevelMeter
from relayd.sound.ring import SoundRing
from relayd.source.voice import FIRST_LIMIT, make_voice

LISTENED: Final = 1.0
"""s of sound whose loudest tenth of a second is told."""
PATIENCE: Final = 2.0
"""s to wait for them beside pictures that have come."""
QUIET: Final = -70.0
"""dBFS below which a microphone is taken for muted: a quiet room is at -60 or so."""


def loudest(ring: SoundRing[OwnSound], within: float) -> float | None:
    """Listen for LISTENED s; return the loudest 100 ms in dBFS, None when too little came."""
    meter, level, count = LevelMeter(), SILENT, 0
    deadline = time.monotonic() + within
    while count * BLOCK_SECONDS < LISTENED and (left := deadline - time.monotonic()) > 0:
        if (block := ring.take(left)) is not None:
            meter.add(block.samples)
            level, count = max(level, meter.dbfs), count + 1
    return level if count else None


def describe(found: SoundFormat | None, level: float | None) -> Finding:
    """Return what to say of sound of this form and level; None for what is not there."""
    if found is None:
        why = "the source has no sound"
        return Finding.warning("sound", why, "[sound] source names a microphone: pulse: or alsa:")
    channels = f"{found.channels} channel{'' if found.channels == 1 else 's'}"
    form = f"{found.codec}, {found.rate} Hz, {channels}"
    if level is None:
        return Finding.warning("sound", f"{form}: none arrived")
    if level < QUIET:
        return Finding.warning("sound", f"{form}: silent!", "is the microphone muted?")
    return Finding.ok("sound", f"{form}, {level:.0f} dBFS")


def check_voice(settings: SoundSettings) -> list[Finding]:
    """Listen to a sound device, or a URL of its own; nothing where there is none."""
    ring: SoundRing[OwnSound] = SoundRing(PATIENCE)
    voice = make_voice(settings, ring, MonotonicClock())
    if voice is None:
        return []
    voice.start()
    try:
        level = _heard_before_trouble(ring, lambda: voice.trouble)
        found, trouble = voice.sound.format, voice.trouble
    finally:
        voice.stop()
    if found is None or level is None:
        # No failure: the relay runs without a voice, and may have the device open now.
        return [Finding.warning("sound", trouble or "no sound arrives")]
    return [describe(found, level)]


def _heard_before_trouble(ring: SoundRing[OwnSound], trouble: Callable[[], str]) -> float | None:
    deadline = time.monotonic() + FIRST_LIMIT
    while not len(ring) and not trouble() and time.monotonic() < deadline:
        time.sleep(0.05)
    return loudest(ring, PATIENCE) if len(ring) else None
