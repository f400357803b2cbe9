"""The supervisor: keeps one relay live, and nothing open that nobody needs.

It starts the outputs first and the session last, and stops them in reverse order. In
between one coroutine, `_drive`, walks through the states of `RelayState`: it waits until a
session is wanted, opens a route, keeps it live through the losses of its parts, and takes a
new one when the old one cannot be saved or has grown old.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from relayd.akool.chores import CreditWatch, keep_closing_leftovers
from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice, SessionKeeper
from relayd.clock import Backoff, Clock, MonotonicClock
from relayd.config import Settings, state_directory
from relayd.control.metrics import Metrics
from relayd.errors import InternalFault, JoinRefused, LinkError, RelaydError
from relayd.frames import SwappedFrame
from relayd.logs import get, redact
from relayd.ondemand import SessionLife
from relayd.output.base import Output, OutputChange, OutputEvent
from relayd.output.standby import StandbyArtist
from relayd.pipeline import Pipeline
from relayd.rotation import Rotation
from relayd.route import Route, RouteParts
from relayd.routes import Routes
from relayd.source.events import SourceEvent
from relayd.states import RelayState, RelayStatus
from relayd.wishes import WATCH_INTERVAL, Wishes

OPEN_BACKOFF = 0.5, 30.0
"""s, first and longest wait between two tries to open a session."""
REJOIN_TRIES = 2
"""Tries to bring a new worker into a session before a new session is asked for."""
MOST_SHORT_LINKS = 3
"""Links in a row that break soon after they came up, before the session is given up."""
GOOD_AFTER = 30.0
"""s that a session was live after which the next failure counts as the first again."""
BLOCKED_RETRY = 600.0
"""s after which even a refusal is tried again: a person may have topped up or unblocked."""
SOON = "the next try comes in a moment"

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
        clock: Clock | None = None,
        on_change: Callable[[RelayState, str], None] = lambda _state, _reason: None,
    ) -> None:
        """Plan the relay `name`; nothing is opened before `run`.

        `more_outputs` are shown the same as the configured ones; `on_change` hears of each
        state with its reason.
        """
        self._settings, self._name = settings, name
        self._client, self._journal = client, journal
        self._clock = clock or MonotonicClock()
        self._on_change = on_change
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
            send=self._routes.publish,
            on_source=lambda event: self._from_thread(self._hear_source, event),
            on_output=lambda event: self._from_thread(self._hear_output, event),
            on_readers=lambda *told: self._from_thread(self._hear_readers, *told),
        )
        self._rotation = Rotation(settings.akool.session_max, self._clock, self._open_successor)
        self._state = RelayState.STARTING
        self._reason = ""
        self._started_at = self._state_since = self._clock.now()
        self._wishes = Wishes(settings, self._clock, on_demand=self._rouse_source)
        self._source_rests = False
        self._backoff = Backoff(*OPEN_BACKOFF)
        self._not_before = float("-inf")
        """When the next session may be opened: who comes and goes shall not hammer the service."""
        self._reconnects = {"link": 0, "session": 0, "output": 0}
        self._troubles: dict[str, str] = {}
        """Why outputs are lost, by their names, which they may get only when they are opened."""
        self._credit = CreditWatch(client)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; every session is closed when this returns.

        Raises Unavailable when an output cannot be opened at the start.
        """
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as started:
            started.callback(self._enter, RelayState.STOPPED)
            await asyncio.to_thread(self.pipeline.start_outputs)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_outputs)
            self._rouse_source()
            self._stand_by()
            await asyncio.to_thread(self.pipeline.start_source)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_source)
            started.push_async_callback(self._routes.end)
            jobs = [
                asyncio.create_task(self._drive(), name="relayd-drive"),
                asyncio.create_task(
                    keep_closing_leftovers(self._client, self._journal), name="relayd-leftovers"
                ),
                asyncio.create_task(self._credit.run(), name="relayd-credit"),
                asyncio.create_task(self._wishes.watch_grace(), name="relayd-grace"),
            ]
            goal = asyncio.create_task(stop.wait(), name="relayd-stop")
            started.push_async_callback(_end, [*jobs, goal])
            await _until(goal, jobs)
            self._enter(RelayState.CLOSING)

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
        self.pipeline.say(self._state.words, self._reason)
        self._rotation.set_life(settings.akool.session_max)
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
        now, pipeline, shown = self._clock.now(), self.pipeline, self._routes.shown
        frames, dropped = pipeline.counts()
        return RelayStatus(
            name=self._name,
            state=self._state,
            reason=self._reason,
            since=now - self._state_since,
            uptime=now - self._started_at,
            source=redact(self._settings.source.url),
            source_alive=self._wishes.source.alive,
            session_id=shown.session_id if shown else None,
            sessions_open=self._routes.sessions_open,
            fps=pipeline.shown_fps(),
            delay=pipeline.delay(),
            own_delay=pipeline.own_delay(),
            longest_gap=pipeline.longest_gap(),
            frames=frames | {"sent": self._routes.sent, "swapped": self._routes.swapped},
            dropped=dropped,
            reconnects=self._reconnects | {"source": pipeline.reader.counters.reconnects},
            outputs={one.name: self._troubles.get(one.name, "ok") for one in self.pipeline.outputs},
            healthy=self._is_healthy(),
            paused=self._wishes.paused,
            session_seconds=self._routes.billed,
            credit=self._credit.left,
            readers=self._wishes.demand.readers,
            on_demand=self._wishes.demand.state,
        )

    def _is_healthy(self) -> bool:
        demand = self._wishes.demand
        nobody_looks = not demand.asks and not demand.is_looked_at
        if self._wishes.paused or (self._state is RelayState.STANDBY and nobody_looks):
            return self._state is RelayState.STANDBY
        return self._state in {RelayState.LIVE, RelayState.ROTATING}

    # The walk through the states.

    async def _drive(self) -> None:
        while True:
            await self._until_wanted()
            failure: RelaydError | None = None
            try:
                await self._one_session()
                self._stand_by()
            except RelaydError as fault:
                failure = fault
            except Exception as fault:  # noqa: BLE001 - the relay goes on
                _log.exception("unforeseen")
                failure = InternalFault(f"unforeseen {type(fault).__name__}: {fault}")
            finally:
                self._wishes.asked.clear()  # this session had what was asked, or was ended by it
                self._wishes.demand.hear_session(SessionLife.UNDERWAY)
                await self._end_routes()
                self._wishes.demand.hear_session(SessionLife.NONE)
            if failure:
                await self._wait_after(failure)

    async def _until_wanted(self) -> None:
        """Stand by until a session may be opened."""
        while not (self._wishes.asks and self._clock.now() >= self._not_before):
            self._stand_by()
            if await self._wishes.sleep(WATCH_INTERVAL):
                self._not_before = float("-inf")

    def _stand_by(self) -> None:
        comes_soon = self._wishes.asks and self._clock.now() < self._not_before
        self._enter(RelayState.STANDBY, SOON if comes_soon else self._wishes.why_none)

    async def _one_session(self) -> None:
        """Open a route and keep it, or its successors, live until nobody wants it."""
        route = self._routes.shown = self._routes.add()
        self._wishes.demand.hear_session(SessionLife.UNDERWAY)
        if await self._while_wanted(self._open(route, self._enter), route):
            self._wishes.demand.hear_session(SessionLife.LIVE)
            lived = await self._keep_live(route)
        else:
            lived = 0.0
        if lived <= GOOD_AFTER:
            self._not_before = self._clock.now() + self._backoff.next_wait()

    async def _keep_live(self, route: Route) -> float:
        """Keep a route, or its successors, live until nobody wants it; gives how long, in s."""
        opened = self._clock.now()
        self._rotation.begin()
        while self._wishes.keeps:
            self._note_health(route)
            await asyncio.sleep(WATCH_INTERVAL)
            if route.ends_soon:
                self._rotation.hurry()
            if self._may_rotate() and (successor := self._rotation.step()):
                route = self._take_over(successor, route)
            try:
                route.check()
            except LinkError as fault:
                if not await self._rejoin(route, fault):
                    break
            if self._clock.now() - opened > GOOD_AFTER:
                self._backoff.reset()
        return self._clock.now() - opened

    async def _open(self, route: Route, on_stage: Callable[[RelayState], None]) -> None:
        face = self._wishes.face
        await route.open(face, on_stage)
        if self._wishes.face is not face:
            await route.update_face(self._wishes.face)

    async def _rejoin(self, route: Route, fault: LinkError) -> bool:
        """Bring the session back after its link failed; raise the fault if that is in vain.

        False when it was given up because nobody wants the session any more.
        """
        for _ in range(REJOIN_TRIES):
            self._enter(RelayState.DEGRADED, str(fault))
            if not fault.retryable or route.short_links >= MOST_SHORT_LINKS:
                break
            self._reconnects["link"] += 1
            try:
                return await self._while_wanted(route.rejoin(lambda _stage: None), route)
            except LinkError as again:
                fault = again
        raise fault

    async def _while_wanted(self, job: Coroutine[Any, Any, None], route: Route) -> bool:
        """Do a job on `route` that may take long, unless that is no longer wanted: then False.

        While the route has no session there is nothing to keep for who comes back. Ending it
        takes a while too, so what is wanted afterwards says nothing of the job.
        """
        task = asyncio.create_task(job)
        try:
            while (
                not task.done()
                and self._wishes.keeps
                and (self._wishes.demand.asks or route.session_id is not None)
            ):
                await asyncio.wait([task], timeout=WATCH_INTERVAL)
            if not task.done():
                return False
            task.result()
            return True
        finally:
            await _end([task])

    def _note_health(self, route: Route) -> None:
        """Tell live from degraded."""
        if not self._wishes.source.alive:
            self._enter(RelayState.DEGRADED, self._wishes.source.reason)
        elif route.degraded:
            self._enter(RelayState.DEGRADED, route.degraded)
        else:
            self._enter(RelayState.ROTATING if self._rotation.in_progress else RelayState.LIVE)

    async def _open_successor(self) -> Route:
        successor = self._routes.add()
        try:
            await self._open(successor, lambda _stage: None)
        except BaseException:
            self._routes.dismiss(successor)
            raise
        return successor

    def _may_rotate(self) -> bool:
        """Whether a successor may be opened, or is; not for a session that nobody looks at."""
        wishes = self._wishes
        return wishes.source.alive and (wishes.demand.asks or self._rotation.in_progress)

    def _take_over(self, successor: Route, old: Route) -> Route:
        self._reconnects["session"] += 1
        self._routes.shown = successor
        self._routes.dismiss(old)
        return successor

    async def _end_routes(self) -> None:
        """Close every session, and wait until that is done."""
        self._routes.shown = None
        self.pipeline.forget()
        await self._rotation.end()
        await self._routes.end()

    # Waiting, and what goes on beside.

    async def _wait_after(self, failure: RelaydError) -> None:
        self._reconnects["session"] += 1
        if failure.retryable or isinstance(failure, JoinRefused):  # of that session's channel
            self._enter(RelayState.BACKOFF, str(failure))
            asked_for = min(failure.retry_after or 0.0, BLOCKED_RETRY)
            await self._wishes.sleep(max(self._backoff.next_wait(), asked_for))
        else:
            self._enter(RelayState.BLOCKED, str(failure))
            await self._sit_out()

    async def _sit_out(self) -> None:
        """Wait after a refusal: while nobody looks without an end.

        Somebody who comes anew may find that it was mended, and ends the wait: but not sooner
        than after any other failure, however often somebody comes.
        """
        now = self._clock.now()
        soonest, latest = now + self._backoff.next_wait(), now + BLOCKED_RETRY
        came = self._wishes.demand.arrivals
        while not await self._wishes.sleep(WATCH_INTERVAL):
            now = self._clock.now()
            due = latest if self._wishes.demand.arrivals == came else soonest
            if self._wishes.demand.asks and now >= due:
                return

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

    def _enter(self, state: RelayState, reason: str = "") -> None:
        """Change the state: the one place that logs it, shows it and tells it."""
        if (state, reason) == (self._state, self._reason):
            return
        _log.info("state", was=self._state.value, now=state.value, reason=reason)
        if state is not self._state:
            self._state_since = self._clock.now()
        self._state, self._reason = state, reason
        if state is not RelayState.STOPPED:  # the outputs are closed by then
            self.pipeline.say(*state.on_picture(reason))
        self._on_change(state, reason)

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
        if self._state not in {RelayState.CLOSING, RelayState.STOPPED}:
            self._wishes.demand.hear_readers(device, count)
            self._rouse_source()  # who comes while a session is being closed changes no state
            if self._state is RelayState.STANDBY:
                self._stand_by()

    def _hear_output(self, event: OutputEvent) -> None:
        if event.change is OutputChange.BACK:
            self._reconnects["output"] += self._troubles.pop(event.output, None) is not None
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
