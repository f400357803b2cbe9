"""A relay: its parts, what may be asked of it, and how it is.

It starts the outputs first and the session last, and stops them in reverse order. What its
media threads tell arrives here; what follows of it for the session is the supervisor's.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from relayd.akool.chores import CreditWatch, keep_closing_leftovers
from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.clock import Clock, MonotonicClock
from relayd.config import Settings, state_directory
from relayd.control.metrics import Metrics
from relayd.frames import SwappedFrame
from relayd.logs import get, redact
from relayd.output.base import Output, OutputChange, OutputEvent
from relayd.output.standby import StandbyArtist
from relayd.relay.pipeline import Pipeline
from relayd.relay.status import RelayState, RelayStatus
from relayd.route import Route, RouteParts
from relayd.routes import Routes
from relayd.source.events import SourceEvent
from relayd.supervisor import Supervisor
from relayd.wishes import Wishes

_log = get("relay")


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
        """Plan the relay `name`; nothing is opened before `run`.

        `more_outputs` are shown the same as the configured ones; `require_outputs` ends `run`
        where one cannot be opened at the start; `on_change` hears of each state with its reason.
        """
        self._settings, self._name = settings, name
        self._client, self._journal = client, journal
        self._clock = clock or MonotonicClock()
        self._started_at = self._clock.now()
        self._wishes = Wishes(settings, self._clock, on_demand=self._rouse_source)
        self._source_rests = False
        parts = RouteParts(
            keeper=SessionKeeper(client, journal, relay=name),
            rtc=settings.rtc,
            video=settings.video,
            clock=self._clock,
            state_directory=state_directory(settings),
        )
        self._routes = Routes(parts, self._show)
        self.metrics = Metrics()
        self.pipeline = Pipeline(
            settings,
            self._clock,
            metrics=self.metrics,
            more_outputs=more_outputs,
            require_outputs=require_outputs,
            send=self._routes.publish,
            on_source=lambda event: self._from_thread(self._hear_source, event),
            on_output=lambda event: self._from_thread(self._hear_output, event),
            on_readers=lambda *told: self._from_thread(self._hear_readers, *told),
        )
        self._supervisor = Supervisor(
            self._wishes,
            self._routes,
            self.pipeline,
            self._clock,
            session_max=settings.akool.session_max,
            on_change=on_change,
        )
        self._outputs_back = 0
        self._troubles: dict[str, str] = {}
        """Why outputs are lost, by their names, which they may get only when they are opened."""
        self._credit = CreditWatch(client)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; every session is closed when this returns.

        Raises Unavailable when an output is required and cannot be opened at the start.
        """
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as started:
            started.callback(self._supervisor.enter, RelayState.STOPPED)
            await asyncio.to_thread(self.pipeline.start_outputs)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_outputs)
            self._rouse_source()
            self._supervisor.stand_by()
            await asyncio.to_thread(self.pipeline.start_source)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_source)
            started.push_async_callback(self._routes.end)
            jobs = [
                asyncio.create_task(self._supervisor.run(), name="relayd-drive"),
                asyncio.create_task(
                    keep_closing_leftovers(self._client, self._journal), name="relayd-leftovers"
                ),
                asyncio.create_task(self._credit.run(), name="relayd-credit"),
                asyncio.create_task(self._wishes.watch_grace(), name="relayd-grace"),
            ]
            goal = asyncio.create_task(stop.wait(), name="relayd-stop")
            started.push_async_callback(_end, [*jobs, goal])
            await _until(goal, jobs)
            self._supervisor.enter(RelayState.CLOSING)

    # What others may ask of a running relay.

    async def set_face(self, image: str, landmarks: str = "") -> None:
        """Put another face on: at once when live, else with the next session."""
        face = FaceChoice(image, landmarks)
        told: set[Route] = set()
        while route := next((one for one in self._routes if one not in told), None):
            told.add(route)  # meanwhile a successor may come, which began with the old face
            await route.update_face(face)
        self._wishes.face = face
        self._wishes.asked.set()

    async def apply(self, settings: Settings) -> None:
        """Take over those keys of `settings` that relayd.reload names; the rest is not looked at.

        All or nothing: raises ConfigError when the standby picture cannot be used, or what
        `set_face` raises, and then everything is as before.
        """
        artist = await asyncio.to_thread(
            StandbyArtist, self._settings.video.geometry, settings.privacy.standby_image
        )
        if settings.face != self._settings.face:  # else one that a person put on stays on
            await self.set_face(settings.face.image, settings.face.landmarks)
        self.pipeline.artist = artist
        self.pipeline.say(*self._supervisor.state.on_picture(self._supervisor.reason))
        self._supervisor.rotation.set_life(settings.akool.session_max)
        self._wishes.demand.set_grace(settings.on_demand.grace)
        self._settings = settings

    async def pause(self) -> None:
        """Close the session and show standby until `resume`."""
        self._wishes.paused = True
        self._wishes.asked.set()

    async def resume(self) -> None:
        """Go on after `pause`; also ends a wait for the next try."""
        self._wishes.paused = False
        self._wishes.asked.set()

    def retry_source(self) -> None:
        """Open the source anew, now."""
        self.pipeline.reader.restart()

    def status(self) -> RelayStatus:
        """Tell how the relay is."""
        now, pipeline, supervisor = self._clock.now(), self.pipeline, self._supervisor
        wishes, routes, shown = self._wishes, self._routes, self._routes.shown
        frames, dropped = pipeline.counts()
        reconnects = {"output": self._outputs_back, "source": pipeline.reader.counters.reconnects}
        return RelayStatus(
            name=self._name,
            state=supervisor.state,
            reason=supervisor.reason,
            since=now - supervisor.since,
            uptime=now - self._started_at,
            source=redact(self._settings.source.url),
            source_alive=wishes.source.alive,
            session_id=shown.session_id if shown else None,
            sessions_open=routes.sessions_open,
            fps=pipeline.shown_fps(),
            delay=pipeline.delay(),
            own_delay=pipeline.own_delay(),
            longest_gap=pipeline.longest_gap(),
            frames=frames | {"sent": routes.sent, "swapped": routes.swapped},
            dropped=dropped,
            reconnects=supervisor.reconnects | reconnects,
            outputs={one.name: self._troubles.get(one.name, "ok") for one in pipeline.outputs},
            healthy=self._is_healthy(),
            paused=wishes.paused,
            session_seconds=routes.billed,
            credit=self._credit.left,
            readers=wishes.demand.readers,
            on_demand=wishes.demand.state,
        )

    def _is_healthy(self) -> bool:
        state, demand = self._supervisor.state, self._wishes.demand
        nobody_looks = not demand.asks and not demand.is_looked_at
        if self._wishes.paused or (state is RelayState.STANDBY and nobody_looks):
            return state is RelayState.STANDBY
        return state in {RelayState.LIVE, RelayState.ROTATING}

    def _rouse_source(self) -> None:
        """Let the source rest or wake it, as the demand is."""
        if (rests := not self._wishes.demand.needs_source) is self._source_rests:
            return
        self._source_rests = rests
        if rests:
            self._wishes.source.rest()
            self.pipeline.rest_source()
        else:
            self._wishes.source.wake()
            self.pipeline.wake_source()

    # What the media threads bring and tell.

    def _show(self, frame: SwappedFrame) -> None:
        """Let a swapped frame be shown, unless it is an echo of a source that is gone."""
        if self._wishes.source.alive:
            self.pipeline.show(frame)

    def _from_thread(self, hear: Callable[..., None], *told: object) -> None:
        self._loop.call_soon_threadsafe(hear, *told)

    def _hear_source(self, event: SourceEvent) -> None:
        self._wishes.source.hear(event, self._clock.now())
        if not self._wishes.source.alive:
            self.pipeline.forget()

    def _hear_readers(self, device: str, count: int | None) -> None:
        if self._supervisor.state not in {RelayState.CLOSING, RelayState.STOPPED}:
            self._wishes.demand.hear_readers(device, count)
            self._rouse_source()  # who comes while a session is being closed changes no state
            if self._supervisor.state is RelayState.STANDBY:
                self._supervisor.stand_by()

    def _hear_output(self, event: OutputEvent) -> None:
        if event.change is OutputChange.BACK:
            self._outputs_back += self._troubles.pop(event.output, None) is not None
            _log.info("output.back", output=event.output)
        else:
            self._troubles[event.output] = event.reason
            _log.error(f"output.{event.change.value}", output=event.output, reason=event.reason)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for them; an error of theirs has been told already."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until(goal: asyncio.Task[Any], others: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for `goal`; raise what one of the others raises before."""
    pending = {goal, *others}
    while goal in pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
