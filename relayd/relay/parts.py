"""The objects that all sessions of a relay share."""

from dataclasses import dataclass, field
from pathlib import Path

from relayd.akool.session import SessionKeeper
from relayd.clock import Clock
from relayd.config.settings import RtcSettings, SoundSettings, VideoSettings
from relayd.relay.gate import FrameGate
from relayd.relay.sound_path import SoundPath
from relayd.rtc.webrtc.fallback import EngineChoice


@dataclass(frozen=True)
class LinkParts:
    """Service, settings, clock and gate of one relay."""

    keeper: SessionKeeper
    rtc: RtcSettings
    video: VideoSettings
    clock: Clock
    gate: FrameGate
    """Where swapped pictures go."""
    state_directory: Path
    """Where a link's library may keep its logs and caches."""
    engine: EngineChoice = field(default_factory=EngineChoice)
    """Which WebRTC engine a worker uses."""
    sound: SoundPath | None = None
    """Where returned sound goes, and whose voice is sent; None where no sound is wanted."""
    sound_settings: SoundSettings = field(default_factory=SoundSettings)
