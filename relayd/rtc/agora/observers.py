"""The SDK's callbacks, on its own threads: each passes on a value and returns."""

import time
from collections.abc import Callable
from typing import Any

from relayd.rtc.agora.events import (
    Connected,
    ConnectionFailed,
    ConnectionLost,
    Disconnected,
    ReceivedFrame,
    Reconnected,
    Reconnecting,
    SdkError,
    SdkEvent,
    TokenEnded,
    TokenEnding,
    TransportStats,
    UserJoined,
    UserLeft,
)
from relayd.rtc.agora.wrapper import IRTCConnectionObserver, IVideoFrameObserver


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
