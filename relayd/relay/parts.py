"""The objects that all sessions of a relay share."""

from dataclasses import dataclass
from pathlib import Path

from relayd.akool.session import SessionKeeper
from relayd.clock import Clock
from relayd.config.settings import RtcSettings, VideoSettings
from relayd.relay.gate import FrameGate


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
