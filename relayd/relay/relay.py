"""A relay: it connects the parts, takes requests and reports its status.

It starts the outputs first and the session last, and stops them in reverse order. Events of its
media threads become events of the state machine, which alone decides what follows.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

from relayd.akool.budget import BudgetReading, BudgetState
from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.akool.upkeep import CreditWatch, keep_closing_orphaned_sessions
from relayd.clock import Clock, MonotonicClock
from relayd.config.paths import state_directory
from relayd.config.settings import Settings
from relayd.errors import Unavailable, UsageError
from relayd.logs import LogEvent, get, redact
from relayd.media.frames import SourceFrame
from relayd.output.base import Output, OutputEvent
from relayd.output.standby import StandbyRenderer
from relayd.relay import events as on
from relayd.relay.background import in_background
from relayd.relay.budget import BudgetWatch
from relayd.relay.commands import Report
from relayd.relay.holdoff import DOUBT_MEMORY
from relayd.relay.kept_mute import KeptMute
from relayd.relay.machine import Machine
from relayd.relay.metrics import Metrics
from relayd.relay.output_faults import OutputFaults
from relayd.relay.parts import LinkParts
from relayd.relay.pipeline import Pipeline
from relayd.relay.policy import is_on_demand, policy_of
from relayd.relay.runner import Runner
from relayd.relay.sound_path import SoundPath
from relayd.relay.status import DemandState, RelayState, RelayStatus
from relayd.rtc.webrtc.fallback import EngineChoice
from relayd.source.events import SourceDown, SourceEnded, SourceEvent, SourceOpened

_log = get("relay")

_NOT_SHOWN = {RelayState.STARTING, RelayState.CLOSING, RelayState.STOPPED}
"""States in which a changed output is not reported by itself: the next state reports it."""


class Relay:
    """One relay, from its source to its outputs; lives in one event loop."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        client: AkoolClient,
        journal: Journal,
        *,
        more_outputs: Sequence[Output] = (),
        require_outputs: bool = False,
        clock: Clock | None = None,
        on_change: Callable[[RelayState, str], None] = lambda _state, _reason: None,
    ) -> None:
        """Create the relay `name`; nothing is opened before `run`.

        `more_outputs` show the same as the configured ones; with `require_outputs` the start fails
        if any output cannot be opened. `on_change` is called with each state and its reason.
        """
        self._settings, self._name = settings, name
        self._client, self._journal = client, journal
        self._clock = clock or MonotonicClock()
        self._started_at = self._clock.now()
        self._on_change = on_change
        self._keeper = SessionKeeper(client, journal, relay=name)
        self._state, self._reason, self._since = RelayState.STARTING, "", self._started_at
        self._demand = DemandState.IDLE if is_on_demand(settings) else DemandState.OFF
        self.metrics = Metrics()
        self._runner: Runner
        self.pipeline = Pipeline(
            settings,
            self._clock,
            metrics=self.metrics,
            more_outputs=more_outputs,
            require_outputs=require_outputs,
            send=self._publish,
            on_source=lambda event: self._runner.post_from_thread(_source_event(event)),
            on_output=lambda event: self._from_thread(self._on_output, event),
            on_readers=lambda *args: self._runner.post_from_thread(on.ReadersChanged(*args)),
            on_listeners=lambda *args: self._runner.post_from_thread(on.ListenersChanged(*args)),
            send_sound=lambda sound: self._runner.publish_sound(sound),  # noqa: PLW0108 - made below
        )
        self._runner = Runner(
            Machine(
                policy_of(settings),
                FaceChoice(settings.face.image.reveal(), settings.face.landmarks),
                doubts=self._earlier_doubts(),
            ),
            LinkParts(
                keeper=self._keeper,
                rtc=settings.rtc,
                video=settings.video,
                clock=self._clock,
                gate=self.pipeline.gate,
                engine=EngineChoice(settings.rtc.engine),
                sound=self.pipeline.sound,
                sound_settings=settings.sound,
                state_directory=state_directory(settings),
            ),
            on_report=self._on_report,
            steer_source=self._steer_source,
            steer_voice=self.pipeline.steer_voice,
        )
        self._kept_mute = KeptMute(state_directory(settings), name)
        if self.pipeline.sound and self._kept_mute.is_set():
            self.pipeline.sound.mute()
        self._output_faults = OutputFaults()
        self._face_lock, self._mute_lock = asyncio.Lock(), asyncio.Lock()
        self._credit = CreditWatch(client)
        self._budget = BudgetWatch(journal, settings.akool.daily_limit, self._on_budget)
        self._budget_now: BudgetReading | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; every session is closed when this returns.

        Raises Unavailable when an output cannot be opened at the start and is required.
        """
        self._loop = asyncio.get_running_loop()
        self._runner.attach_loop()
        async with AsyncExitStack() as started:
            started.callback(self._enter, RelayState.STOPPED)
            started.callback(self._runner.stop_timer)
            jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
                "orphans": lambda: keep_closing_orphaned_sessions(self._client, self._journal),
                "credit": self._credit.run,
                "budget": self._budget.run,
            }
            for name, job in jobs.items():
                await started.enter_async_context(in_background(name, job))
            await asyncio.to_thread(self.pipeline.start_outputs)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_outputs)
            self._post_outputs()
            with suppress(Unavailable):  # reported when a session is opened
                await self._budget.read()
            # Registered before the start: if it fails, source and session may be open already.
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_source)
            started.push_async_callback(self._close_sessions)
            self._runner.post(on.Started())
            await asyncio.to_thread(self.pipeline.start_source)
            await stop.wait()

    # Requests to a running relay.

    async def set_face(self, image: str, landmarks: str = "") -> None:
        """Switch to another face: at once when live, else with the next session.

        Raises FaceRejected when it cannot be used, or the service's error when it cannot be
        checked; the face then stays as it was. Raises another error of the service when the live
        session refused it: that is retried a few times, and the next session uses the new face.
        """
        async with self._face_lock:
            face = FaceChoice(image, landmarks)
            await self._keeper.landmarks(face, fresh=True)
            self._runner.post(on.FaceChosen(face))
            if refusal := await self._runner.until_face_answered(face):
                raise refusal

    async def apply(self, settings: Settings) -> None:
        """Apply those keys of `settings` that a reload may change; the rest is ignored.

        All or nothing: raises ConfigError when the standby picture cannot be used, and as
        `set_face`; then everything stays as before, except a face that is being retried.
        """
        renderer = await asyncio.to_thread(
            StandbyRenderer, self._settings.video.geometry, settings.privacy.standby_image
        )
        if settings.face != self._settings.face:  # else keep the one that the user chose
            await self.set_face(settings.face.image.reveal(), settings.face.landmarks)
        self.pipeline.renderer = renderer
        self._settings = settings
        if self.pipeline.sound:
            self.pipeline.sound.set_offset(settings.sound.offset)
        self._draw_standby()
        self._runner.post(on.PolicyChanged(policy_of(settings)))
        self._budget.set_limit(settings.akool.daily_limit)

    async def pause(self) -> None:
        """Close the session and show standby until `resume`."""
        self._runner.post(on.Paused())

    async def resume(self) -> None:
        """Go on after `pause`; also ends a wait for the next try, even for a later run."""
        try:
            await asyncio.to_thread(self._journal.acknowledge_doubts, self._name)
        except Unavailable as fault:
            _log.warning(LogEvent.RELAY_DOUBTS_NOT_NOTED, reason=str(fault))
        self._runner.post(on.Resumed())

    async def mute(self) -> None:
        """Let nothing be heard until `unmute`, also of a later run.

        Raises UsageError where the relay has no sound.
        """
        self._sound().mute()
        await self._keep_mute()

    async def unmute(self) -> None:
        """End a mute; raises UsageError where the relay has no sound."""
        self._sound().unmute()
        await self._keep_mute()

    async def _keep_mute(self) -> None:
        """Write down whether the relay is muted now, which another request may have changed."""
        async with self._mute_lock:
            is_muted = self._sound().is_muted
            await asyncio.to_thread(self._kept_mute.set if is_muted else self._kept_mute.clear)

    def _sound(self) -> SoundPath:
        if self.pipeline.sound is None:
            raise UsageError(
                "this relay has no sound",
                hint='add [sound], or an [[output]] with kind = "microphone", and restart it',
            )
        return self.pipeline.sound

    async def suspend(self) -> None:
        """Close every session, as the computer is about to sleep; returns when that is done."""
        self._runner.post(on.SleepComing())
        await self._runner.until_idle()

    def wake(self) -> None:
        """Go on after `suspend`."""
        self._runner.post(on.WokeUp())
        self._budget.refresh()  # a session left open was billed during the sleep

    def retry_source(self) -> None:
        """Open the source again at once."""
        self.pipeline.reader.restart()

    def status(self) -> RelayStatus:
        """Return a snapshot of the relay."""
        now, pipeline, runner = self._clock.now(), self.pipeline, self._runner
        machine, budget = runner.machine, self._budget_now
        frames, dropped = pipeline.counts()
        slowness = pipeline.reader.slowness
        return RelayStatus(
            name=self._name,
            state=self._state,
            reason=self._reason or slowness,
            since=now - self._since,
            uptime=now - self._started_at,
            source=str(self._settings.source.url),
            source_alive=machine.conditions.source.alive,
            source_buffer=pipeline.reader.buffered,
            session_id=runner.shown_id,
            sessions_open=runner.sessions_open,
            fps=pipeline.shown_fps(),
            delay=pipeline.delay(),
            own_delay=pipeline.own_delay(),
            longest_gap=pipeline.longest_gap(),
            frames=frames | {"sent": runner.sent, "swapped": pipeline.gate.passed},
            dropped=dropped,
            reconnects={
                "link": machine.sessions.link_restarts,
                "session": machine.sessions.changes,
                "output": self._output_faults.recovered,
                "source": pipeline.reader.counters.reconnects,
                "sound": pipeline.sound_losses(),
            },
            outputs=self._output_faults.states(
                [
                    *(output.name for output in pipeline.outputs),
                    *(microphone.name for microphone in pipeline.microphones),
                ],
                pipeline.pending(),
            ),
            files=pipeline.files(),
            healthy=self._is_healthy(),
            paused=machine.conditions.paused,
            session_seconds=runner.billed,
            credit=self._credit.left,
            readers=dict(machine.conditions.readers.counts),
            on_demand=self._demand,
            sessions_doubtful=machine.doubtful,
            spent_today=budget.spent if budget else 0.0,
            daily_limit=budget.limit if budget else 0.0,
            budget=budget.text if budget and budget.state is not BudgetState.OK else "",
            source_behind=pipeline.reader.behind,
            source_slow=slowness,
            sound=pipeline.sound_status(dict(machine.conditions.listeners)),
        )

    def _is_healthy(self) -> bool:
        if self._output_faults or self.pipeline.pending():
            return False
        conditions = self._runner.machine.conditions
        no_readers = not conditions.readers.want_session
        if conditions.paused or (self._state is RelayState.STANDBY and no_readers):
            return self._state is RelayState.STANDBY
        return self._state in {RelayState.LIVE, RelayState.ROTATING}

    async def _close_sessions(self) -> None:
        self._runner.post(on.Stop())
        await self._runner.until_idle()

    # Events of the machine and the media threads.

    def _on_report(self, report: Report) -> None:
        if report.demand is not self._demand:
            readers = self._runner.machine.conditions.readers.counts
            was, self._demand = self._demand, report.demand
            _log.info(
                LogEvent.RELAY_DEMAND, was=was.value, now=report.demand.value, readers=dict(readers)
            )
        self._enter(report.state, report.reason)
        self._budget.refresh()

    def _enter(self, state: RelayState, reason: str = "") -> None:
        """Change the state: the only place that logs, shows and reports it."""
        reason = redact(reason)
        if (state, reason) == (self._state, self._reason):
            return
        _log.info(LogEvent.RELAY_STATE, was=self._state.value, now=state.value, reason=reason)
        if state is not self._state:
            self._since = self._clock.now()
        self._state, self._reason = state, reason
        if state is not RelayState.STOPPED:  # the outputs are closed by then
            self._draw_standby()
        self._on_change(state, self._output_faults.added_to(reason))

    def _draw_standby(self) -> None:
        details = self._settings.privacy.standby_text == "details"
        self.pipeline.set_standby_text(*self._state.on_picture(self._reason, details=details))

    def _steer_source(self, needed: bool) -> None:  # noqa: FBT001 - callback with one flag
        if needed:
            self.pipeline.resume_source()
        else:
            self.pipeline.suspend_source()

    def _publish(self, frame: SourceFrame) -> None:
        """Send a source frame; called in the pacer's thread."""
        self._runner.publish(frame)

    def _from_thread(self, call: Callable[..., None], *args: object) -> None:
        self._loop.call_soon_threadsafe(call, *args)

    def _on_output(self, event: OutputEvent) -> None:
        self._output_faults.handle(event)
        self._post_outputs()
        if self._state not in _NOT_SHOWN:
            self._on_change(self._state, self._output_faults.added_to(self._reason))

    def _post_outputs(self) -> None:
        pipeline = self.pipeline
        self._runner.post(on.OutputsChanged(pipeline.outputs_working(), pipeline.outputs_trouble()))

    def _on_budget(self, reading: BudgetReading) -> None:
        self._budget_now = reading
        spent = reading.state is BudgetState.SPENT
        if spent or self._runner.machine.conditions.budget_spent:
            self._runner.post(on.BudgetChanged(spent, reading.text))

    def _earlier_doubts(self) -> list[float]:
        """Return the times (monotonic s) of answers that an earlier run of this relay lost."""
        now, wall = self._clock.now(), time.time()
        try:
            doubts = self._journal.doubts(since=wall - DOUBT_MEMORY)
        except Unavailable:  # reported when a session is opened
            return []
        return [
            now - max(0.0, wall - doubt.at)
            for doubt in doubts
            if doubt.relay == self._name and not doubt.held and not doubt.looked_at
        ]


def _source_event(event: SourceEvent) -> on.Event:
    match event:
        case SourceOpened(width, height, fps, codec, kind):
            _log.info(
                LogEvent.SOURCE_OPENED, width=width, height=height, fps=fps, codec=codec, kind=kind
            )
            return on.SourceUp()
        case SourceDown(error, retry_in):
            _log.warning(LogEvent.SOURCE_DOWN, reason=str(error), retry_in=round(retry_in, 2))
            return on.SourceDown(str(error))
        case SourceEnded():
            _log.info(LogEvent.SOURCE_ENDED)
            return on.SourceEnded()
