"""The SDK's callbacks, on its own threads: each passes on a value and returns."""

import time
from collections.abc import Callable
from typing import Any

from relayd.rtc.agora.events import (
    Connected,
    ConnectionFailed,
    ConnectionLost,
    Disconnected,
    ReceivedBlock,
    ReceivedFrame,
    Reconnected,
    Reconnecting,
    SdkError,
    SdkEvent,
    SoundOffered,
    TokenEnded,
    TokenEnding,
    TransportStats,
    UserJoined,
    UserLeft,
)
from relayd.rtc.agora.wrapper import (
    IAudioFrameObserver,
    IRTCConnectionObserver,
    IRTCLocalUserObserver,
    IVideoFrameObserver,
)

_BEFORE_MIXING = 8
"""Position of the sound of single users; the wrapper's own observers ask for another."""
_TAKEN = 1
"""Answer of a sound callback, which must be an int."""
_STOPPED = 0
"""State of a remote user's sound."""


class FrameObserver(IVideoFrameObserver):  # type: ignore[misc]  # wrapper is untyped
    """Passes on the pictures of one user; the wrapper is patched to read no others."""

    def __init__(self, user: str, on_frame: Callable[[ReceivedFrame], None]) -> None:
        self.user, self._on_frame = user.encode(), on_frame
        self.is_closed = False

    def on_frame(self, _channel: str | None, _user: str, frame: Any) -> None:
        if self.is_closed:
            return
        self._on_frame(
            ReceivedFrame(
                width=frame.width,
                height=frame.height,
                strides=(frame.y_stride, frame.u_stride, frame.v_stride),
                planes=(frame.y_buffer, frame.u_buffer, frame.v_buffer),  # the wrapper's copies
                rotation=frame.rotation,
                received_at=time.monotonic(),
            )
        )


class SoundObserver(IAudioFrameObserver):  # type: ignore[misc]  # wrapper is untyped
    """Passes on the sound of one user before mixing; the wrapper is patched to read no other."""

    def __init__(self, user: str, on_block: Callable[[ReceivedBlock], None]) -> None:
        self.user, self._on_block = user.encode(), on_block
        self.is_closed = False

    def on_get_audio_frame_position(self, _local_user: Any) -> int:
        return _BEFORE_MIXING

    def on_playback_audio_frame_before_mixing(
        self, _local_user: Any, _channel: str, _user: str, frame: Any, _vad: int, _pcm: Any
    ) -> int:
        if not self.is_closed:
            self._on_block(
                ReceivedBlock(
                    rate=frame.samples_per_sec,
                    channels=frame.channels,
                    pcm=frame.buffer,
                    received_at=time.monotonic(),
                )
            )
        return _TAKEN


class UserObserver(IRTCLocalUserObserver):  # type: ignore[misc]  # wrapper is untyped
    """Reports whether a user sends sound at all."""

    def __init__(self, on_event: Callable[[SdkEvent], None]) -> None:
        self._on_event = on_event
        self.is_closed = False

    def on_user_audio_track_subscribed(self, _local_user: Any, user: str, _track: Any) -> None:
        self._emit(SoundOffered(user, is_on=True))

    def on_user_audio_track_state_changed(  # the SDK's own arguments
        self, _local_user: Any, user: str, _track: Any, state: int, _reason: int, _elapsed: int
    ) -> None:
        self._emit(SoundOffered(user, is_on=state != _STOPPED))

    def _emit(self, event: SdkEvent) -> None:
        if not self.is_closed:
            self._on_event(event)


class ConnectionObserver(IRTCConnectionObserver):  # type: ignore[misc]  # wrapper is untyped
    """Reports what happens to the connection."""

    def __init__(self, on_event: Callable[[SdkEvent], None]) -> None:
        self._on_event = on_event
        self.is_closed = False

    def _emit(self, event: SdkEvent) -> None:
        if not self.is_closed or isinstance(event, Disconnected):
            self._on_event(event)

    def on_connected(self, _connection: Any, _info: Any, _reason: int) -> None:
        self._emit(Connected())

    def on_disconnected(self, _connection: Any, _info: Any, reason: int) -> None:
        self._emit(Disconnected(reason))

    def on_reconnecting(self, _connection: Any, _info: Any, reason: int) -> None:
        self._emit(Reconnecting(reason))

    def on_reconnected(self, _connection: Any, _info: Any, _reason: int) -> None:
        self._emit(Reconnected())

    def on_connection_lost(self, _connection: Any, _info: Any) -> None:
        self._emit(ConnectionLost())

    def on_connection_failure(self, _connection: Any, _info: Any, reason: int) -> None:
        self._emit(ConnectionFailed(reason))

    def on_user_joined(self, _connection: Any, user: str) -> None:
        self._emit(UserJoined(user))

    def on_user_left(self, _connection: Any, user: str, _reason: int) -> None:
        self._emit(UserLeft(user))

    def on_token_privilege_will_expire(self, _connection: Any, _token: str) -> None:
        self._emit(TokenEnding())

    def on_token_privilege_did_expire(self, _connection: Any) -> None:
        self._emit(TokenEnded())

    def on_error(self, _connection: Any, code: int, text: str) -> None:
        self._emit(SdkError(code, text))

    def on_transport_stats(self, _connection: Any, stats: Any) -> None:
        # A view into native memory: read now, never kept.
        self._emit(
            TransportStats(
                publish_kbit=float(stats.tx_video_k_bit_rate),
                play_kbit=float(stats.rx_video_k_bit_rate),
                round_trip_ms=float(stats.gateway_rtt),
            )
        )
