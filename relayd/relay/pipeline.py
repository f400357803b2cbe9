"""The media side of a relay: source to slot to pacer, and slot to output clock to outputs.

It knows nothing of sessions or states. Its owner is notified of what the source and the outputs
do, passes each paced frame to a link, and puts swapped frames into the gate.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Lock

from relayd.clock import Clock
from relayd.config.settings import (
    CameraSettings,
    MicrophoneSettings,
    OutputSettings,
    Settings,
    StreamSettings,
)
from relayd.logs import LogEvent, get
from relayd.media.delay import DelayMeter, Spread
from relayd.media.frames import OutputFrame, SourceFrame, SwappedFrame
from relayd.media.slots import LatestSlot
from relayd.output.base import Output, OutputEvent, PlaysSound, SoundOutput
from relayd.output.camera import CameraOutput
from relayd.output.clock import Fallback, OutputClock, Shown
from relayd.output.microphone import make_microphone
from relayd.output.readers import WatchedCamera
from relayd.output.standby import StandbyRenderer
from relayd.output.stream import StreamOutput
from relayd.relay.gate import FrameGate
from relayd.relay.metrics import Metrics
from relayd.relay.recent import Recent, spread_of_sum
from relayd.relay.sound_path import SoundPath
from relayd.relay.status import RelayState, SoundStatus
from relayd.sound.blocks import OwnSound
from relayd.source.events import SourceEvent
from relayd.source.pacer import Pacer
from relayd.source.reader import SourceReader
from relayd.source.voice import make_voice

_log = get("pipeline")

REMEMBERED = 60.0
"""s of measurements in a spread."""
FPS_WINDOW = 5.0
"""s over which the shown fps is averaged."""
FIRST_TICK_TIMEOUT = 5.0
"""s that the outputs may take to their first picture; then the start goes on without it."""


class Pipeline:
    """Threads and slots between the source and the outputs."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        metrics: Metrics,
        more_outputs: Sequence[Output],
        require_outputs: bool = False,
        send: Callable[[SourceFrame], None],
        on_source: Callable[[SourceEvent], None],
        on_output: Callable[[OutputEvent], None],
        on_readers: Callable[[str, int | None], None],
        on_listeners: Callable[[str, int | None], None],
        send_sound: Callable[[OwnSound], None],
    ) -> None:
        """Create it without opening anything; `send` gets each paced frame and must not block.

        `send` is called in the pacer's thread, `send_sound` in the sound's. `more_outputs` show
        the same as the configured ones. With `require_outputs` an output that cannot be opened
        fails the start; otherwise it is retried.
        """
        video = settings.video
        self.source: LatestSlot[SourceFrame] = LatestSlot()
        swapped: LatestSlot[SwappedFrame] = LatestSlot()
        self._send, self._metrics, self._clock = send, metrics, clock
        self._meter = DelayMeter(video.fps, self._note_delay)
        self._lock = Lock()
        self._send_ages, self._show_ages = Recent(REMEMBERED), Recent(REMEMBERED)
        self._gaps = Recent(FPS_WINDOW)
        self._last_tick_at: float | None = None
        self._first_tick = Event()
        self._require_outputs, self._are_open = require_outputs, False
        fallback = Fallback(settings.privacy.fallback)
        self.gate = FrameGate(swapped, holds=fallback is Fallback.HOLD)
        self._draw_pool = ThreadPoolExecutor(1, thread_name_prefix="relayd-standby")
        self.renderer = StandbyRenderer(video.geometry, settings.privacy.standby_image)
        shown = [one for one in settings.output if not isinstance(one, MicrophoneSettings)]
        self.outputs: list[Output] = [
            *(
                _make_output(output, settings, number, on_output, on_readers)
                for number, output in enumerate(shown, 1)
            ),
            *more_outputs,
        ]
        self._counted = self.outputs[: len(shown)] or self.outputs
        self.microphones: list[SoundOutput] = [
            make_microphone(output, on_listeners)
            for output in settings.output
            if isinstance(output, MicrophoneSettings)
        ]
        self.sound = (
            SoundPath(
                settings.sound,
                self.microphones,
                [output.play for output in self.outputs if isinstance(output, PlaysSound)],
                send=send_sound,
                clock=clock,
                on_event=on_output,
            )
            if settings.wants_sound
            else None
        )
        self.output_clock = OutputClock(
            self.outputs,
            swapped,
            self.renderer.draw(*RelayState.STARTING.on_picture("")),
            fps=video.fps,
            policy=fallback,
            source=self.source,
            hold_for=settings.rtc.stall_timeout,
            clock=clock,
            on_shown=self._note_shown,
            on_event=on_output,
        )
        self.reader = SourceReader(
            settings.source,
            video.geometry,
            video.fit,
            self.source,
            on_source,
            turn=video.turn,
            fps=video.fps,
            sound=self.sound.captured if self.sound and settings.sound.source == "auto" else None,
            clock=clock,
        )
        self.voice = make_voice(settings.sound, self.sound.captured, clock) if self.sound else None
        self.pacer = Pacer(
            self.source,
            self._pass_on,
            video.fps,
            max_age=settings.source.stall_timeout,
            clock=clock,
        )

    def start_outputs(self) -> None:
        """Open every output and start showing; one that cannot be opened is reported and retried.

        Returns when they have their first picture: from then on readers see standby. Raises the
        error of the first output that cannot be opened if outputs are required.
        """
        try:
            for output in self.outputs:
                self._open(output)
            self.output_clock.start()
            if self.sound:
                self.sound.start()
            self._are_open = True
        except BaseException:
            self.stop_outputs()
            raise
        self._first_tick.wait(FIRST_TICK_TIMEOUT)

    def _open(self, output: Output) -> None:
        try:
            output.open()
        except Exception as fault:
            if self._require_outputs:
                raise
            self.output_clock.mark_lost(output, fault)

    def stop_outputs(self) -> None:
        """Stop the output clock and close every output."""
        self._are_open = False
        self._draw_pool.shutdown(cancel_futures=True)
        if self.sound:
            self.sound.stop()
        self.output_clock.stop()
        for output in reversed(self.outputs):
            output.close()

    def outputs_working(self) -> bool:
        """Whether any configured output is open and not lost, so that a session can be seen.

        If none is configured the extra ones count, such as the page's preview. When an output
        event is emitted, this already agrees with it.
        """
        return self._are_open and not all(self._trouble(output) for output in self._counted)

    def outputs_trouble(self) -> str:
        """Return why no configured output works, as text; empty while one does."""
        if self.outputs_working():
            return ""
        troubles = (self._trouble(output) for output in self._counted)
        return next(filter(None, troubles), "no output is open")

    def pending(self) -> frozenset[str]:
        """Return the names of the streams and microphones that have not delivered anything yet."""
        streams = (output for output in self.outputs if isinstance(output, StreamOutput))
        names = frozenset(stream.name for stream in streams if not stream.stats().up)
        return names | self.sound.pending() if self.sound else names

    def files(self) -> dict[str, tuple[str, ...]]:
        """Return the files of each recording that have pictures, newest last."""
        streams = (output for output in self.outputs if isinstance(output, StreamOutput))
        return {stream.name: files for stream in streams if (files := stream.files())}

    def _trouble(self, output: Output) -> str:
        of_stream = output.trouble if isinstance(output, StreamOutput) else ""
        return of_stream or self.output_clock.trouble(output)

    def start_source(self) -> None:
        """Start reader, voice and pacer."""
        with ExitStack() as undo:
            undo.callback(self.reader.stop)
            self.reader.start()
            if self.voice:
                undo.callback(self.voice.stop)
                self.voice.start()
            self.pacer.start()
            undo.pop_all()

    def suspend_source(self) -> None:
        """Release the source and send nothing until `resume_source`; also before the start.

        The gate is shut: no held picture and no late one is shown again, as it would show an old
        call in the next one.
        """
        self.pacer.pause()
        self.reader.pause()
        self.gate.shut()

    def resume_source(self) -> None:
        """Open the source again and send."""
        self.reader.resume()
        self.pacer.resume()

    def steer_voice(self, wanted: bool) -> None:  # noqa: FBT001 - callback with one flag
        """Open the voice's own device, or close it; also before the start."""
        if self.voice:
            (self.voice.resume if wanted else self.voice.pause)()

    def stop_source(self) -> None:
        """Stop pacer, voice and reader."""
        self.pacer.stop()
        if self.voice:
            self.voice.stop()
        self.reader.stop()

    def set_standby_text(self, title: str, detail: str) -> None:
        """Draw a standby picture with this text in another thread, then show it."""
        try:
            self._draw_pool.submit(self._draw, title, detail)
        except RuntimeError as fault:  # no thread: keep the last picture
            _log.warning(LogEvent.STANDBY_NOT_DRAWN, title=title, reason=str(fault))

    def _draw(self, title: str, detail: str) -> None:
        self.output_clock.set_standby(self.renderer.draw(title, detail))

    def delay(self) -> Spread:
        """Return the glass-to-glass delay, from decoding to the outputs."""
        return self._meter.spread()

    def own_delay(self) -> Spread:
        """Return the relay's own share: decoded to sent, plus received to shown."""
        with self._lock:
            halves = self._send_ages.numbers(), self._show_ages.numbers()
        return spread_of_sum(*halves)

    def shown_fps(self) -> float:
        """Return the ticks per second over FPS_WINDOW."""
        with self._lock:
            return self._gaps.rate()

    def longest_gap(self) -> float:
        """Return the longest time between two pictures on the outputs, seconds."""
        return self.output_clock.stats().gaps.longest

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return frames by stage, and dropped frames by stage and reason."""
        output, reader, pacer = self.output_clock.stats(), self.reader.counters, self.pacer.counters
        frames = {"source": reader.frames} | {
            kind.value: count for kind, count in output.shown.items()
        }
        dropped = {
            "source.late": reader.late,
            "source.corrupt": reader.corrupt,
            "pacer.newer": pacer.dropped,
            "pacer.skipped": pacer.skipped,
            "screen.skipped": output.skipped,
        }
        return frames, dropped

    def sound_status(self, listeners: dict[str, int | None]) -> SoundStatus | None:
        """Return how the sound is; None where the relay has none."""
        if self.sound is None:
            return None
        trouble = self.voice.trouble if self.voice else self.reader.sound.trouble
        return self.sound.status(listeners, trouble)

    def sound_losses(self) -> int:
        """Return how often the sound that is captured was lost."""
        return (self.voice or self.reader).sound.losses

    def since_tick(self) -> float:
        """Return the seconds since the outputs last got a picture; infinite before the first."""
        with self._lock:
            return (
                float("inf")
                if self._last_tick_at is None
                else self._clock.now() - self._last_tick_at
            )

    def _note_delay(self, delay: float) -> None:
        self._metrics.observe_delay(delay)
        if self.sound:
            self.sound.note_delay(delay)

    def _pass_on(self, frame: SourceFrame) -> None:
        self._send(frame)
        now = self._clock.now()
        self._meter.sent(frame)
        with self._lock:
            self._send_ages.add(now - frame.captured_at, now)

    def _note_shown(self, frame: OutputFrame, kind: Shown, at: float) -> None:
        with self._lock:
            gap = None if self._last_tick_at is None else at - self._last_tick_at
            self._last_tick_at = at
            self._gaps.add(gap or 0.0, at)
        self._first_tick.set()
        if gap is not None:
            self._metrics.observe_output_gap(gap)
        if kind is Shown.FRESH and isinstance(frame, SwappedFrame):
            self._meter.shown(frame, at)
            self._metrics.observe_frame_age(at - frame.received_at)
            with self._lock:
                self._show_ages.add(at - frame.received_at, at)


def _make_output(
    output: CameraSettings | StreamSettings,
    settings: Settings,
    number: int,
    on_event: Callable[[OutputEvent], None],
    on_readers: Callable[[str, int | None], None],
) -> Output:
    video = settings.video
    if isinstance(output, CameraSettings):
        return WatchedCamera(CameraOutput(output.device, video.geometry, video.fps), on_readers)
    return StreamOutput(
        output.url,
        video.geometry,
        video.fps,
        video.bitrate,
        name=_name_of(output, settings.output),
        audio=output.audio if settings.wants_sound else None,
        number=number,
        on_event=on_event,
    )


def _name_of(output: StreamSettings, outputs: Sequence[OutputSettings]) -> str:
    """Return the URL's safe form, with a number if an earlier output has the same one."""
    name, same = str(output.url), 0
    for one in outputs:
        if one is output:
            break
        same += isinstance(one, StreamSettings) and str(one.url) == name
    return f"{name} #{same + 1}" if same else name
