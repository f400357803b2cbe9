"""The `agora` link: publishes to the session's channel, plays the swapped user's pictures.

It has two threads: `relayd-agora` makes every call of the SDK and runs the stages of `Progress`;
`relayd-agora-pictures` packs received pictures. The SDK's threads only put a value into the inbox
or the latest-frame slot; blocks of sound they pass on at once.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread

import numpy as np

from relayd import logs
from relayd.errors import LinkError, LinkLost, RelaydError
from relayd.logs import LogEvent
from relayd.media.frames import I420
from relayd.media.slots import LatestSlot
from relayd.rtc.agora import preflight
from relayd.rtc.agora.ears import Ears
from relayd.rtc.agora.events import (
    Disconnected,
    PictureCame,
    ReceivedFrame,
    SdkError,
    SdkEvent,
    TransportStats,
)
from relayd.rtc.agora.folder import own_folder
from relayd.rtc.agora.hearing import SILENT_FOR, Hearing
from relayd.rtc.agora.orders import Broken, Leave, Order, Publish, Renew, Speak
from relayd.rtc.agora.pace import Pacer
from relayd.rtc.agora.planes import Packer
from relayd.rtc.agora.progress import Progress, Stage
from relayd.rtc.agora.sdk import Channel, Publication, Service
from relayd.rtc.agora.token import TokenFacts, read_token
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkStats, LinkTarget
from relayd.sound.blocks import Samples

POLL_INTERVAL = 0.1
"""s between two checks for due work."""
PICTURE_WAIT = 0.2
"""s after which the picture thread checks whether it should end."""
LEAVE_TIMEOUT = 2.0
"""s to leave in without a deadline, and at most to wait for the SDK's confirmation."""
SETTLE = 0.1
"""s between leaving the channel and freeing it, which Agora's own programs wait."""

_log = logs.get("agora")


class AgoraLink:
    """A link to the channel that a session names."""

    def __init__(
        self,
        target: LinkTarget,
        on_picture: Callable[[I420, float], None],
        on_event: Callable[[LinkEvent], None],
        on_sound: Callable[[Samples, float], None] | None = None,
    ) -> None:
        """Prepare; raises ConfigError or LinkError for a target that cannot be joined."""
        self._target = target
        self._facts = read_token(target.token)
        self._app_id = preflight.app_id_of(target, self._facts)
        preflight.validate_target(target, self._facts)
        self._on_picture, self._on_event = on_picture, on_event
        self._token = target.token
        self._inbox: SimpleQueue[SdkEvent | Order] = SimpleQueue()
        self._pacer = Pacer()
        self._hearing = Hearing(target.algorithm_user_id, is_wanted=target.return_sound)
        self._ears = Ears(self._hearing, on_sound) if on_sound and target.return_sound else None
        self._frames: LatestSlot[ReceivedFrame] = LatestSlot()
        self._outbox = Lock()
        self._pending = np.empty(target.geometry.shape, np.uint8)
        self._sending = np.empty(target.geometry.shape, np.uint8)
        self._is_pending = self._has_published = self._is_out = False
        self._over = Event()
        # Daemons: an SDK call that never returns must not keep the process.
        self._control = Thread(target=self._run, name="relayd-agora", daemon=True)
        self._pictures = Thread(target=self._deliver, name="relayd-agora-pictures", daemon=True)
        self._progress = Progress(
            target.algorithm_user_id,
            first_frame_timeout=target.first_frame_timeout,
            recovery_timeout=target.recovery_timeout,
            now=time.monotonic(),
        )
        self._sent = self._dropped = self._received = self._broken = 0
        self._refused = 0

    def join(self) -> None:
        """Begin to join and return at once; events report the rest."""
        self._control.start()
        self._pictures.start()

    def publish(self, picture: I420, captured_at: float) -> None:  # noqa: ARG002 - see push
        """Send `picture` unless a newer one comes before the SDK is free; never blocks.

        Its time is not passed on: the SDK stamps pictures itself.
        """
        with self._outbox:
            np.copyto(self._pending, picture)
            self._dropped += self._is_pending
            was_pending, self._is_pending = self._is_pending, True
        if not was_pending:
            self._inbox.put(Publish())

    def publish_sound(self, samples: Samples, at: float) -> None:  # noqa: ARG002 - see push_sound
        """Send one block, 10 ms after the last one at the earliest; never blocks.

        Its time is not passed on: the SDK stamps sound itself, as it does pictures.
        """
        if self._pacer.put(samples.copy()):
            self._inbox.put(Speak())

    def renew(self, token: str) -> None:
        """Use `token` from now on; returns at once."""
        self._inbox.put(Renew(token))

    def leave(self, deadline: float) -> None:
        """Leave and free everything, by `deadline` (monotonic) at the latest; blocks."""
        if not self._control.is_alive():
            return
        self._inbox.put(Leave(deadline))
        self._control.join(max(0.0, deadline - time.monotonic()))
        self._pictures.join(max(0.0, deadline - time.monotonic()))

    # On the thread relayd-agora.

    def _run(self) -> None:
        channel: Channel | None = None
        try:
            channel = self._make_channel()
            self._note_token_lifetime(self._facts, self._target.token_age)
            self._connect(channel)
            while (leave_by := self._run_until_left(channel)) is None:
                self._step_out(channel)
                channel = None
                channel = self._make_channel()
                self._connect(channel)
            self._leave_channel(channel, leave_by)
            self._on_event(LinkEvent(LinkEventKind.LEFT))
        except RelaydError as fault:
            self._end_with(fault, channel)
        except Exception as fault:  # noqa: BLE001 - a thread must report
            _log.exception(LogEvent.LINK_BROKEN)
            self._end_with(LinkLost(f"the link broke: {type(fault).__name__}"), channel)
        finally:
            self._over.set()

    def _end_with(self, fault: RelaydError, channel: Channel | None) -> None:
        """Report first, as leaving may take long."""
        kind = LinkEventKind.LOST if fault.retryable else LinkEventKind.REFUSED
        self._on_event(LinkEvent(kind, error=fault))
        if channel is not None:
            self._leave_channel(channel, time.monotonic() + LEAVE_TIMEOUT)

    def _make_channel(self) -> Channel:
        target = self._target
        folder = own_folder(Path(target.state_directory))
        service = Service.of(self._app_id, folder, text_ids=preflight.needs_text_ids(target))
        return Channel(
            service,
            Publication(target.geometry, target.fps, target.bitrate_kbit, target.publish_sound),
            target.algorithm_user_id,
            on_event=self._inbox.put,
            on_frame=self._frames.put,
            on_block=self._ears.hear if self._ears else None,
            plays_out=self._hearing.plays_out,
        )

    def _connect(self, channel: Channel) -> None:
        channel.connect(self._token, self._target.channel_id, self._target.front_user_id)

    def _run_until_left(self, channel: Channel) -> float | None:
        """Handle the inbox and due work until told to leave; returns the deadline for that.

        None: the channel is to be joined again. Raises the LinkError that ended the link.
        """
        while not self._hearing.wants_playout(time.monotonic()):
            until_sound = self._pacer.wait(time.monotonic())
            with suppress(Empty):
                match self._inbox.get(timeout=min(POLL_INTERVAL, until_sound)):
                    case Leave(deadline):
                        return deadline
                    case Publish():
                        self._push(channel)
                    case Speak():
                        pass  # to look at the pacer
                    case Renew(token):
                        self._renew(channel, token)
                    case Broken(fault):
                        raise fault
                    case event:
                        self._on_sdk_event(event)
            self._push_sound(channel)
            self._do_periodic_work(channel)
        _log.warning(LogEvent.LINK_SOUND_MISSING, seconds=SILENT_FOR)
        return None

    def _on_sdk_event(self, event: SdkEvent) -> None:
        match event:
            case Disconnected():
                self._is_out = True
            case TransportStats():
                self._on_event(LinkEvent(LinkEventKind.STATS, stats=self._stats(event)))
            case SdkError(code, text):
                _log.warning(LogEvent.SDK_ERROR, code=code, text=text)
        now = time.monotonic()
        self._hearing.handle(event, now)
        self._emit(self._progress.handle(event, now))

    def _stats(self, rates: TransportStats) -> LinkStats:
        return LinkStats(
            publish_kbit=rates.publish_kbit,
            play_kbit=rates.play_kbit,
            round_trip=rates.round_trip_ms / 1e3,
            sent=self._sent,
            dropped=self._dropped,
            received=self._received,
        )

    def _renew(self, channel: Channel, token: str) -> None:
        """Use another token; if it is refused, the old one stays in use until it expires."""
        try:
            channel.renew(token)
        except LinkError as fault:
            _log.warning(LogEvent.TOKEN_REFUSED, reason=str(fault))
            self._on_event(LinkEvent(LinkEventKind.TOKEN_EXPIRING, str(fault)))
        else:
            self._token = token
            self._note_token_lifetime(read_token(token), age=0.0)

    def _do_periodic_work(self, channel: Channel) -> None:
        now = time.monotonic()
        self._emit(self._progress.check(now))
        if self._progress.wants_subscription(now):
            channel.subscribe()
        if self._hearing.wants_subscription(now):
            channel.subscribe_sound()
        if self._progress.wants_key_frame(now):
            channel.request_key_frame()

    def _push(self, channel: Channel) -> None:
        with self._outbox:
            self._pending, self._sending = self._sending, self._pending
            self._is_pending = False
        if self._progress.stage is Stage.JOINING:
            return
        if channel.push(self._sending) < 0:
            self._dropped += 1
            return
        self._sent += 1
        if not self._has_published:
            self._has_published = True
            self._on_event(LinkEvent(LinkEventKind.PUBLISHING))

    def _push_sound(self, channel: Channel) -> None:
        samples = self._pacer.take(time.monotonic())
        if samples is None or self._progress.stage is Stage.JOINING:
            return
        if (returned := channel.push_sound(samples)) < 0:
            self._refused += 1
            if self._refused == 1:
                _log.warning(LogEvent.LINK_SOUND_REFUSED, call="push", returned=returned)

    def _step_out(self, channel: Channel) -> None:
        """Leave the channel to join it again; what waits in the inbox stays there."""
        why = "the channel is joined again, for the service's sound"
        self._emit(self._progress.rejoin(why, time.monotonic()))
        for order in self._leave_channel(channel, time.monotonic() + LEAVE_TIMEOUT):
            self._inbox.put(order)
        self._is_out = False
        self._pacer.clear()

    def _leave_channel(self, channel: Channel, deadline: float) -> list[Order]:
        """Leave the channel and free it; late callbacks of the SDK return at once.

        Returns what was ordered meanwhile.
        """
        channel.mute()
        channel.disconnect()
        orders: list[Order] = []
        if not self._is_out:
            orders = self._wait_until_out(min(deadline, time.monotonic() + LEAVE_TIMEOUT))
        time.sleep(SETTLE)
        channel.release()
        return orders

    def _wait_until_out(self, deadline: float) -> list[Order]:
        orders: list[Order] = []
        with suppress(Empty):
            while (left := deadline - time.monotonic()) > 0:
                item = self._inbox.get(timeout=left)
                if isinstance(item, Disconnected):
                    break
                if isinstance(item, Order):
                    orders.append(item)
        return orders

    def _note_token_lifetime(self, facts: TokenFacts | None, age: float) -> None:
        if facts is not None:
            self._progress.set_token_lifetime(facts.lifetime - age, time.monotonic())

    def _emit(self, events: list[LinkEvent]) -> None:
        for event in events:
            self._on_event(event)

    # On the thread relayd-agora-pictures.

    def _deliver(self) -> None:
        try:
            self._deliver_until_over()
        except Exception as fault:  # noqa: BLE001 - a thread must report
            self._inbox.put(Broken(fault))

    def _deliver_until_over(self) -> None:
        """Pack each received frame, the newest first, and pass it on."""
        packer, number = Packer(), 0
        while not self._over.is_set():
            number, frame = self._frames.wait_newer(number, PICTURE_WAIT)
            if frame is None:
                continue
            picture = packer.pack(frame)
            if picture is None:
                self._note_broken(frame)
                continue
            self._received += 1
            self._progress.picture_at = frame.received_at
            if self._progress.awaits_picture:
                self._inbox.put(PictureCame())
            self._on_picture(picture, frame.received_at)

    def _note_broken(self, frame: ReceivedFrame) -> None:
        self._broken += 1
        if self._broken == 1:
            size = f"{frame.width}x{frame.height}"
            _log.warning(
                LogEvent.LINK_FRAME_BROKEN,
                size=size,
                strides=frame.strides,
                rotation=frame.rotation,
            )
