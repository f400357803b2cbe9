"""The sound of a relay: from the source, or the service, through the line and the gate to outputs.

The counterpart of `relayd.relay.pipeline` for sound. It knows nothing of sessions or states: its
owner says when sound may be heard, and what delay the pictures have.
"""

from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Final

from relayd.clock import Clock
from relayd.config.settings import SoundSettings
from relayd.errors import Unavailable
from relayd.logs import LogEvent, get
from relayd.output.base import OutputEvent, SoundOutput
from relayd.output.kept import KeptOutput
from relayd.process.limits import start_thread
from relayd.relay.status import SoundStatus
from relayd.sound.blocks import BLOCK_SECONDS, AudibleSound, OwnSound, ReturnedSound
from relayd.sound.clock import HELD, SoundClock
from relayd.sound.follow import DelayFollower
from relayd.sound.gate import Silence, SoundGate
from relayd.sound.level import LevelMeter
from relayd.sound.line import DelayLine
from relayd.sound.returned import ReturnedBuffer
from relayd.sound.ring import SoundRing

_log = get("sound")

CAPTURED: Final = 2.0
"""s of the source's sound that may wait for the tick: what a recording is read ahead."""
RETURNED: Final = 0.2
"""s of the service's sound that may wait for the tick."""

ON_THE_WAY: Final = 0.2
"""s that sound may take from the room to relayd, where its time is that of its arrival: a Bluetooth
headset takes the longest. What was said so shortly before an unmute was said while muted."""

LATER: Final = 0.02
"""s that sound is aimed behind its picture. Programs show a picture some ms after it is there, and
sound that is early is noticed sooner than sound that is late (ITU-R BT.1359: 45 ms against 125)."""


class SoundPath:
    """Takes what was captured and returned, and plays what may be heard, 100 times a second."""

    def __init__(
        self,
        settings: SoundSettings,
        outputs: Sequence[SoundOutput],
        recorders: Sequence[Callable[[AudibleSound], None]],
        *,
        send: Callable[[OwnSound], None],
        clock: Clock,
        on_event: Callable[[OutputEvent], None],
    ) -> None:
        """Create it silent, without opening anything.

        `outputs` are microphones; `recorders` take each block as well, and place it by its time.
        `send` gets the voice for the service, if that is wanted. None may block.
        """
        self.captured: SoundRing[OwnSound] = SoundRing(CAPTURED)
        self.returned: SoundRing[ReturnedSound] = SoundRing(RETURNED)
        self._settings, self._clock, self._send = settings, clock, send
        self._recorders = recorders
        self._stop = Event()
        self._kept = [
            KeptOutput(output, stop=self._stop, clock=clock, on_event=on_event)
            for output in outputs
        ]
        self._follower = DelayFollower(settings.offset, settings.delay)
        self._line, self._back = DelayLine(), ReturnedBuffer(settings.offset)
        self._plays_own = settings.play == "own"
        line = self._line if self._plays_own else self._back
        self._gate = SoundGate(line, Silence.NOT_LIVE)
        self._sound_clock = SoundClock(self._play, clock)
        self._level = LevelMeter()
        self._voice_alone = False
        self._failed_recorders: set[int] = set()
        """Places of the recorders whose fault was logged."""
        self._taken = self._sent = self._played = 0

    def start(self) -> None:
        """Start to play, and to open the microphones: a sound server may take seconds to answer."""
        for kept in self._kept:
            kept.open_soon()
        self._sound_clock.start()

    def stop(self) -> None:
        """Stop playing and close the microphones."""
        self._stop.set()
        self._sound_clock.stop()
        self.captured.clear()
        self.returned.clear()
        _close_together(self._kept)

    def pending(self) -> frozenset[str]:
        """Return the names of the microphones that are being opened for the first time."""
        return frozenset(kept.output.name for kept in self._kept if kept.lost and not kept.trouble)

    # What its owner decides.

    @property
    def is_muted(self) -> bool:
        """Whether `mute` was called after the last `unmute`."""
        return Silence.MUTED in self._gate.reasons

    def mute(self) -> None:
        """Let nothing be heard, and send nothing to the service, until `unmute`."""
        self._gate.close(Silence.MUTED)

    def unmute(self) -> None:
        """End a mute; what was said meanwhile is not heard, also not what is still on the way."""
        self._gate.open(Silence.MUTED, self._clock.now() + ON_THE_WAY)

    def steer(self, silent_for: frozenset[Silence], *, voice_alone: bool) -> None:
        """Be silent for exactly these reasons, besides a mute; `voice_alone`: do not delay."""
        self._voice_alone = voice_alone
        now = self._clock.now()
        for reason in Silence:
            if reason in silent_for:
                self._gate.close(reason)
            elif reason is not Silence.MUTED:
                self._gate.open(reason, now)

    def note_delay(self, delay: float) -> None:
        """Take note of the delay of a picture that was just shown, s."""
        self._follower.note(delay, self._clock.now())

    def forget_delay(self) -> None:
        """Measure from now on only, as the pictures go another way now."""
        self._follower.forget()

    def set_offset(self, offset: float) -> None:
        """Play the sound `offset` s later than the picture."""
        self._follower.set_offset(offset)
        self._back.set_offset(offset)

    def put_returned(self, sound: ReturnedSound) -> None:
        """Offer a block from the service; called in the worker's thread."""
        self.returned.put(sound)

    # What is played.

    def _play(self, due: float) -> None:
        self._take()
        ahead = self._latency()
        if self._voice_alone:
            self._line.steer(0.0)
        elif (target := self._wanted()) is not None:
            self._line.steer(max(0.0, target - ahead))
        # What the service returned belongs to the pictures of now, however late a listener is.
        sound = self._gate.pull(due, due + ahead if self._plays_own else due)
        self._level.add(sound.samples)
        self._played += 1
        for kept in self._kept:
            kept.use(lambda output: output.play(sound))
        for place in range(len(self._recorders)):
            self._offer(place, sound)

    def _offer(self, place: int, sound: AudibleSound) -> None:
        """Give a recorder the block; a fault of one takes nothing from the others."""
        try:
            self._recorders[place](sound)
        except Exception:  # noqa: BLE001 - the others must get it
            if place not in self._failed_recorders:  # 100 times a second would fill the disk
                self._failed_recorders.add(place)
                _log.exception(LogEvent.SOUND_RECORDER_FAILED)

    def _wanted(self) -> float | None:
        """Return the s from capture to listener; None before the picture's delay is known."""
        target = self._follower.target()
        return target if target is None or self._settings.delay else target + LATER

    def _target(self) -> float:
        """Return the s from capture to listener that the line works towards; 0.0: none is known."""
        if self._settings.play == "returned":
            return 0.0  # when that was captured, the service alone knows
        return self._latency() if self._voice_alone else self._wanted() or 0.0

    def _take(self) -> None:
        """Take what came since the last tick."""
        while (own := self.captured.take()) is not None:
            self._taken += 1
            if self._settings.publish and self._gate.may_send(own):
                self._send(own)
                self._sent += 1
            if self._plays_own:
                self._gate.push(own)
        while (back := self.returned.take()) is not None:
            if not self._plays_own:
                self._gate.push(back)

    def _latency(self) -> float:
        """Return the s from when a block is due until it is heard."""
        latencies = (kept.output.latency for kept in self._kept if not kept.lost)
        return HELD + max(latencies, default=0.0)

    def status(self, listeners: dict[str, int | None], trouble: str = "") -> SoundStatus:
        """Return a snapshot; `listeners` are the programs that read each microphone.

        `trouble` is why nothing is captured.
        """
        line, counts, reasons = self._line, self._line.counts, self._gate.reasons
        is_own = self._plays_own
        delay = line.delay if is_own else self._back.depth * BLOCK_SECONDS
        return SoundStatus(
            muted=Silence.MUTED in reasons,
            silent_for=tuple(sorted(reason.value for reason in reasons)),
            delay=0.0 if reasons else delay + self._latency(),
            target=self._target(),
            level=self._level.dbfs,
            rate_ppm=line.rate_ppm if is_own else 0.0,
            blocks={"captured": self._taken, "sent": self._sent, "played": self._played},
            dropped={
                "captured.full": self.captured.dropped,
                "returned.full": self.returned.dropped,
                "returned.excess": self._back.dropped,
                "played.late": self._sound_clock.counts.skipped,
            },
            gaps=line.gap_seconds,
            cuts={
                "pause": counts.cuts_in_pauses,
                "speech": counts.cuts_in_speech,
                "skip": counts.skips,
                "resync": line.resyncs,
            },
            listeners=listeners,
            trouble=trouble,
        )


def _close_together(every: Sequence[KeptOutput[SoundOutput]]) -> None:
    """Close them in parallel: a sound server that hangs is waited for once, not for each."""
    threads = [
        Thread(target=_close, args=(kept,), name=f"relayd-close-{kept.output.name}", daemon=True)
        for kept in every
    ]
    for kept, thread in zip(every, threads, strict=True):
        try:
            start_thread(thread)
        except Unavailable:
            _close(kept)
    for thread in threads:
        if thread.ident is not None:
            thread.join()


def _close(kept: KeptOutput[SoundOutput]) -> None:
    """Close a microphone; a fault of one is not to keep the others, and the pictures, open."""
    try:
        kept.join()
        kept.output.close()
    except Exception:  # noqa: BLE001 - the others must be closed
        _log.exception(LogEvent.OUTPUT_FAILED, output=kept.output.name)
