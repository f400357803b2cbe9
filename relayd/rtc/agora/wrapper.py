"""Agora's wrapper, imported and patched.

The only module that imports it. Importing this one loads the native library; it raises
LibraryUnavailable if that fails.
"""

from typing import Any

from relayd.rtc.agora import installation
from relayd.rtc.agora.import_guard import guarded_import

installation.require()
with guarded_import():
    from agora.rtc import local_user as _local_user
    from agora.rtc._ctypes_handle._audio_frame_observer import (
        AudioFrameObserverInner as _AudioFrameObserverInner,
    )
    from agora.rtc._ctypes_handle._ctypes_data import RTCConnInfoInner as _RTCConnInfoInner
    from agora.rtc._ctypes_handle._video_frame_observer import (
        VideoFrameObserverInner as _VideoFrameObserverInner,
    )
    from agora.rtc.agora_base import (
        AgoraServiceConfig,
        AudioProfileType,
        AudioPublishType,
        AudioScenarioType,
        ChannelProfileType,
        ClientRoleType,
        ExternalVideoFrame,
        RTCConnConfig,
        RtcConnectionPublishConfig,
        VideoCodecType,
        VideoDimensions,
        VideoEncoderConfiguration,
        VideoPublishType,
        VideoStreamType,
        VideoSubscriptionOptions,
    )
    from agora.rtc.agora_service import AgoraService
    from agora.rtc.audio_frame_observer import IAudioFrameObserver
    from agora.rtc.local_user_observer import IRTCLocalUserObserver
    from agora.rtc.rtc_connection import RTCConnection
    from agora.rtc.rtc_connection_observer import IRTCConnectionObserver
    from agora.rtc.video_frame_observer import IVideoFrameObserver

__all__ = [
    "AgoraService",
    "AgoraServiceConfig",
    "AudioProfileType",
    "AudioPublishType",
    "AudioScenarioType",
    "ChannelProfileType",
    "ClientRoleType",
    "ExternalVideoFrame",
    "IAudioFrameObserver",
    "IRTCConnectionObserver",
    "IRTCLocalUserObserver",
    "IVideoFrameObserver",
    "RTCConnConfig",
    "RTCConnection",
    "RtcConnectionPublishConfig",
    "VideoCodecType",
    "VideoDimensions",
    "VideoEncoderConfiguration",
    "VideoPublishType",
    "VideoStreamType",
    "VideoSubscriptionOptions",
]


class _FramesOfOneUser(_VideoFrameObserverInner):  # type: ignore[misc]  # wrapper is untyped
    """Reads only the frames of the observer's `user`.

    A publisher also gets frames of uid "0": their pointers are invalid (the Go SDK skips them for
    that reason), and they would show our own raw picture.
    """

    def _on_frame(self, handle: Any, channel: bytes, user: bytes, frame: Any) -> None:
        if user == self.video_frame_observer.user:
            super()._on_frame(handle, channel, user, frame)


class _SoundOfOneUser(_AudioFrameObserverInner):  # type: ignore[misc]  # wrapper is untyped
    """Reads only the sound of the observer's `user`, as _FramesOfOneUser does."""

    def _on_playback_audio_frame_before_mixing(
        self, handle: Any, channel: bytes, user: bytes, frame: Any
    ) -> int:
        if user != self.observer.user:
            return 1
        answer: int = super()._on_playback_audio_frame_before_mixing(handle, channel, user, frame)
        return answer


def _no_info(_info: Any) -> None:
    """Read nothing of a connection's info: decoding it fails if a text in it is NULL."""


_local_user.VideoFrameObserverInner = _FramesOfOneUser
_local_user.AudioFrameObserverInner = _SoundOfOneUser
_RTCConnInfoInner.get = _no_info
