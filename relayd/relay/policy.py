"""The settings that the state machine depends on."""

from dataclasses import dataclass
from typing import Literal

from relayd.config.settings import CameraSettings, MicrophoneSettings, Settings, StreamSettings
from relayd.source.voice_plans import NO_DEVICE


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of the state machine; a reload may replace them."""

    on_demand: bool = False
    """A session is open only while a program reads a camera."""
    grace: float = 30.0
    """s that a session is kept after the last reader left."""
    session_max: float = 0.0
    """s after which a new session takes over; 0: never."""
    first_frame_timeout: float = 20.0
    """s from the join to the first swapped picture."""
    stall_timeout: float = 3.0
    """s without a swapped picture after which a link counts as lost."""
    sound: bool = False
    """There is sound to steer."""
    voice_apart: bool = False
    """The voice comes from a device of its own, not with the source's pictures."""
    voice_recorded: bool = False
    """Not only programs that read a microphone get the voice: a stream or the service does."""
    sound_standby: Literal["keep", "mute"] = "keep"
    """Whether the voice is heard while the swap is away after it was live."""


def policy_of(settings: Settings) -> Policy:
    """Return the policy of these settings."""
    has_streams = any(isinstance(output, StreamSettings) for output in settings.output)
    return Policy(
        on_demand=is_on_demand(settings),
        grace=settings.on_demand.grace,
        session_max=settings.akool.session_max,
        first_frame_timeout=settings.rtc.first_frame_timeout,
        stall_timeout=settings.rtc.stall_timeout,
        sound=settings.wants_sound,
        voice_apart=settings.wants_sound and settings.sound.source not in NO_DEVICE,
        voice_recorded=settings.sound.publish or has_streams,
        sound_standby=settings.sound.standby,
    )


def is_on_demand(settings: Settings) -> bool:
    """Whether sessions depend on programs that read the cameras.

    A viewer of the page does not count: a forgotten tab would keep a session open and billed.
    """
    are_cameras = [
        isinstance(output, CameraSettings)
        for output in settings.output
        if not isinstance(output, MicrophoneSettings)
    ]
    match settings.on_demand.mode:
        case "never":
            return False
        case "always":
            return any(are_cameras)
        case "auto":
            # Microphones alone need no session: the voice goes out without a picture.
            return bool(settings.output) and all(are_cameras)
