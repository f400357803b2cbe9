"""Agora's wrapper, imported and repaired where it breaks.

The only module that imports it. Importing this one loads the native library; it raises
LibraryUnavailable where that cannot be.
"""

from typing import Any

from relayd.rtc.agora import installation
from relayd.rtc.agora.import_guard import guarded_import

installation.require()
with guarded_import():
    from agora.rtc import local_user as _local_user
    from agora.rtc._ctypes_handle._ctypes_data import RTCConnInfoInner as _RTCConnInfoInner
    from agora.rtc._ctypes_handle._video_frame_observer import (
        VideoFrameObserverInner as _VideoFrameObserverInner,
    )
    from agora.rtc.agora_base import (
        AgoraServiceConfig,
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
    from agora.rtc.local_user_observer import IRTCLocalUserObserver
    from agora.rtc.rtc_connection import RTCConnection
    from agora.rtc.rtc_connection_observer import IRTCConnectionObserver
    from agora.rtc.video_frame_observer import IVideoFrameObserver

__all__ = [
    "AgoraService",
    "AgoraServiceConfig",
    "AudioScenarioType",
    "ChannelProfileType",
    "ClientRoleType",
    "ExternalVideoFrame",
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
    """Lets no frame be read but those of the observer's `user`.

    Who publishes gets frames of uid "0" as well: their pointers are invalid (the Go SDK leaves
    them out for that), and what they would show is our own raw picture.
    """

    def _on_frame(self, handle: Any, channel: bytes, user: bytes, frame: Any) -> None:
        if user == self.video_frame_observer.user:
            super()._on_frame(handle, channel, user, frame)


def _no_info(_info: Any) -> None:
    """Nothing is read of a connection's info: decoding it fails where a text in it is NULL."""


_local_user.VideoFrameObserverInner = _FramesOfOneUser
_RTCConnInfoInner.get = _no_info
