"""A member of a channel in the hub: its requests, actions, and what it was sent."""

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tests.agora.connection import Connection
from tests.agora.pictures import Picture, PictureFault
from tests.agora.sounds import Block, Hearing, SentSound, SoundFault
from tests.agora.wire import Message, Reason, encode

BROADCASTER = 1
"""The role that may publish."""
ENCODER = ("width", "height", "fps", "bitrate", "min_bitrate", "codec")
"""The words of `encoder`."""


class State(StrEnum):
    """The state of a member."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    DISCONNECTED = "disconnected"
    LEFT = "left"
    """It left."""
    VANISHED = "vanished"
    """Its connection ended without leaving."""


@dataclass(slots=True)
class Subscription:
    """Whether a user's pictures can be decoded yet."""

    decoding: bool = False
    due: float | None = None
    """When a key frame comes unasked, monotonic seconds; None before the first picture."""

    def start_over(self) -> None:
        """Wait for a key frame again."""
        self.decoding, self.due = False, None

    def decodes(self, *, key: bool, now: float, interval: float) -> bool:
        """Whether a picture at `now` can be decoded; `interval` is that of key frames in s."""
        if self.due is None:
            self.due = now + interval
        self.decoding = self.decoding or key or now >= self.due
        return self.decoding


class Member:
    """One membership, from `join` to the end of its connection."""

    def __init__(
        self,
        connection: Connection,
        *,
        app_id: str,
        channel: str,
        uid: str,
        token: str,
        role: int,
    ) -> None:
        self.connection = connection
        self.app_id, self.channel_name, self.uid, self.token = app_id, channel, uid, token
        self.role = role
        self.pid = connection.pid
        self.state = State.CONNECTING
        self.away = False
        """To the others it seems to have left."""
        self.publishes: set[str] = set()
        self.subscriptions: dict[str, Subscription] = {}
        self.encoder: dict[str, int] = {}
        self.renewed: list[str] = []
        self.intra_requests: Counter[str] = Counter()
        self.key_wanted = False
        """The next picture that it sends is a key frame."""
        self.picture: Picture | None = None
        """What it sent last."""
        self.frames_in = 0
        self.sound, self.hearing = SentSound(), Hearing()
        self.network = {"rtt_ms": 20, "tx_loss": 0, "rx_loss": 0}

    @property
    def on_air(self) -> bool:
        """Its pictures reach others."""
        may = self.role == BROADCASTER and "video" in self.publishes
        return may and self.state is State.CONNECTED and not self.away

    @property
    def on_microphone(self) -> bool:
        """Its sound reaches others."""
        may = self.role == BROADCASTER and "audio" in self.publishes
        return may and self.state is State.CONNECTED and not self.away

    @property
    def over(self) -> bool:
        """It is in no channel, and will not be."""
        return self.state not in {State.CONNECTING, State.CONNECTED, State.RECONNECTING}

    @property
    def kbit(self) -> int:
        """What it sends a second, as its encoder is set, in kbit."""
        return self.encoder.get("bitrate", 0) // 1000 if self.on_air else 0

    def note(self, message: Message) -> None:
        """Record what concerns only itself; ValueError when it is invalid."""
        match message.name, *message.words:
            case "unsubscribe", uid:
                self.subscriptions.pop(uid, None)
            case "unsubscribe_sound", uid:
                self.hearing.subscriptions.pop(uid, None)
            case "sound_profile", *numbers:
                self.hearing.profile = tuple(map(int, numbers))
            case "renew", token:
                self.renewed.append(token)
                self.token = token
            case "encoder", *numbers:
                self.encoder = dict(zip(ENCODER, map(int, numbers), strict=True))
            case _:
                raise ValueError(f"{message.name} {message.words} makes no sense")

    def send_event(self, event: str, *words: str | int) -> None:
        """Send an event."""
        self.connection.post(encode(event, *words))

    def end(self, state: State, reason: Reason | int) -> None:
        """Tell it that its membership is over: `failed` or `disconnected`."""
        self.state = state
        self.connection.forget_pictures()
        self.send_event(state.value, reason)

    def part(self) -> None:
        """Confirm that it left."""
        self.end(State.DISCONNECTED, Reason.LEFT)
        self.state = State.LEFT

    def show(self, uid: str, picture: Picture, fault: PictureFault | None) -> None:
        """Send a picture of user `uid`, or what a fault makes of it."""
        arriving = fault.shown(uid, picture, self.picture) if fault else [(uid, picture)]
        for sender, shown in arriving:
            self.connection.show(sender, shown.line(sender), shown.payload)

    def hear(self, uid: str, block: Block, fault: SoundFault | None) -> None:
        """Send a block of sound of user `uid`, or what a fault makes of it."""
        if fault and fault.needs_playout and not self.hearing.plays_out:
            return
        if fault and fault.rate:
            block = replace(block, rate=fault.rate)
        self.connection.post(block.line(fault.sender or uid if fault else uid), block.payload)
        self.hearing.heard += 1

    def burst(self, uid: str, count: int) -> None:
        """Send grey pictures of user `uid`, one behind the other and none left out."""
        size = (self.picture.width, self.picture.height) if self.picture else (640, 480)
        grey = Picture.grey(*size)
        for _ in range(count):
            self.connection.post(grey.line(uid), grey.payload)

    def burst_sound(self, uid: str, count: int) -> None:
        """Send blocks of silence of user `uid`, one behind the other."""
        silence = Block.silence()
        for _ in range(count):
            self.connection.post(silence.line(uid), silence.payload)

    def described(self) -> dict[str, Any]:
        """What it is and did, for JSON."""
        size = (self.picture.width, self.picture.height) if self.picture else (0, 0)
        return {
            "app_id": self.app_id,
            "channel": self.channel_name,
            "uid": self.uid,
            "token": self.token,
            "role": self.role,
            "pid": self.pid,
            "state": self.state.value,
            "publishes": sorted(self.publishes),
            "subscribes": sorted(self.subscriptions),
            "encoder": self.encoder,
            "renewed": self.renewed,
            "intra_requests": self.intra_requests,
            "frames_in": self.frames_in,
            "frames_out": self.connection.shown,
            "frames_replaced": self.connection.replaced,
            "size_in": size,
            "hears": sorted(self.hearing.subscriptions),
            "sound_profile": self.hearing.profile,
            "plays_out": self.hearing.plays_out,
            "sound": self.sound.described(),
            "heard": self.hearing.heard,
        }
