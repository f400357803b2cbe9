"""The supervisor: keeps one relay live, and nothing open that nobody needs.

It starts the outputs first and the session last, and stops them in reverse order. In
between one coroutine, `_drive`, walks through the states of `RelayState`: it waits until a
session is wanted, opens a route, keeps it live through the losses of its parts, and takes a
new one when the old one cannot be saved or has grown old.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from relayd.akool.client import AkoolClient
from relayd.akool.journal import Journal
from relayd.akool.session import FaceChoice, SessionKeeper, close_leftovers
from relayd.clock import Backoff, Clock, MonotonicClock
from relayd.config import Settings
from relayd.control.metrics import Metrics
from relayd.errors import InternalFault, LinkError, RelaydError
from relayd.frames import SourceFrame, SwappedFrame
from relayd.logs import get, redact
from relayd.output.base import Output, OutputChange, OutputEvent
from relayd.pipeline import Pipeline
from relayd.route import WATCH_INTERVAL, Route, RouteParts
from relayd.source.events import SourceDown, SourceEnded, SourceEvent, SourceOpened
from relayd.states import RelayState, RelayStatus

SOURCE_PATIENCE = 30.0
"""s that a session is kept, and paid, while the source is away; then it is closed."""
OPEN_BACKOFF = 0.5, 30.0
"""s, first and longest wait between two tries to open a session."""
REJOIN_TRIES = 2
"""Tries to bring a new worker into a session before a new session is asked for."""
BLOCKED_RETRY = 600.0
"""s after which even a refusal is tried again: a person may have topped up or unblocked."""
CREDIT_INTERVAL = 600.0
"""s between two looks at the credit left."""
ROTATION_RETRY = 60.0
"""s between two tries to take a new session while the old one still works."""

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
        metrics: Metrics | None = None,
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
        self.metrics = metrics or Metrics()
        self.pipeline = Pipeline(
            settings,
            self._clock,
            metrics=self.metrics,
            more_outputs=more_outputs,
            send=self._send,
            on_source=lambda event: self._from_thread(self._hear_source, event),
            on_output=lambda event: self._from_thread(self._hear_output, event),
        )
        self._state = RelayState.STARTING
        self._reason = ""
        self._started_at = self._state_since = self._clock.now()
        self._face = FaceChoice(settings.face.image, settings.face.landmarks)
        self._paused = False
        self._source_alive = self._source_ended = False
        self._source_lost_at = self._started_at
        self._source_reason = "waiting for the source's first picture"
        self._routes: tuple[Route, ...] = ()
        self._shown: Route | None = None
        self._rotation: asyncio.Task[Route] | None = None
        self._farewells: dict[asyncio.Task[None] | None, Route] = {}
        self._nudged = asyncio.Event()
        self._backoff = Backoff(*OPEN_BACKOFF, good_after=SOURCE_PATIENCE)
        self._reconnects = {"source": 0, "link": 0, "session": 0, "output": 0}
        self._outputs = {output.name: "ok" for output in self.pipeline.outputs}
        self._swapped_count = self._sent_count = 0
        self._billed = 0.0
        self._credit: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; every session is closed when this returns.

        Raises Unavailable when an output cannot be opened at the start.
        """
        self._loop = asyncio.get_running_loop()
        keeper = SessionKeeper(self._client, self._journal, relay=self._name)
        self._parts = RouteParts(
            keeper=keeper,
            rtc=self._settings.rtc,
            video=self._settings.video,
            clock=self._clock,
            on_swapped=self._take_swapped,
        )
        async with AsyncExitStack() as started:
            started.callback(self._enter, RelayState.STOPPED)
            await asyncio.to_thread(self.pipeline.start_outputs)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_outputs)
            self._enter(RelayState.STANDBY, self._source_reason)
            await asyncio.to_thread(self.pipeline.start_source)
            started.push_async_callback(asyncio.to_thread, self.pipeline.stop_source)
            started.push_async_callback(self._say_farewell)
            jobs = [
                asyncio.create_task(self._drive(), name="relayd-drive"),
                asyncio.create_task(self._close_leftovers(), name="relayd-leftovers"),
                asyncio.create_task(self._follow_credit(), name="relayd-credit"),
            ]
            goal = asyncio.create_task(stop.wait(), name="relayd-stop")
            started.push_async_callback(_end, [*jobs, goal])
            await _until(goal, jobs)
            self._enter(RelayState.CLOSING)

    # What others may ask of a running relay.

    async def set_face(self, image: str, landmarks: str = "") -> None:
        """Put another face on: at once when live, else with the next session."""
        face = FaceChoice(image, landmarks)
        for route in self._routes:
            await route.update_face(face)
        self._face = face
        self._nudged.set()

    async def pause(self) -> None:
        """Close the session and show standby until `resume`."""
        self._paused = True
        self._nudged.set()

    async def resume(self) -> None:
        """Go on after `pause`; also ends a wait for the next try."""
        self._paused = False
        self._nudged.set()

    def retry_source(self) -> None:
        """Open the source anew, now."""
        self.pipeline.reader.restart()

    def status(self) -> RelayStatus:
        """Tell how the relay is."""
        now, screen = self._clock.now(), self.pipeline.screen.stats()
        reader, pacer = self.pipeline.reader.counters, self.pipeline.pacer.counters
        shown = self._shown
        return RelayStatus(
            name=self._name,
            state=self._state,
            reason=self._reason,
            since=now - self._state_since,
            uptime=now - self._started_at,
            source=redact(self._settings.source.url),
            source_alive=self._source_alive,
            session_id=shown.session_id if shown else None,
            sessions_open=sum(route.session_id is not None for route in self._routes),
            fps=self.pipeline.shown_fps(),
            delay=self.pipeline.delay(),
            own_delay=self.pipeline.own_delay(),
            longest_gap=screen.gaps.longest,
            frames={
                "source": reader.frames,
                "sent": self._sent_count,
                "swapped": self._swapped_count,
                **{kind.value: count for kind, count in screen.shown.items()},
            },
            dropped={
                "source.late": reader.late,
                "source.corrupt": reader.corrupt,
                "pacer.skipped": pacer.skipped,
                "pacer.newer": pacer.dropped,
                "screen.skipped": screen.skipped,
            },
            reconnects={**self._reconnects, "source": reader.reconnects},
            outputs=dict(self._outputs),
            healthy=self._is_healthy(),
            paused=self._paused,
            session_seconds=self._billed
            + sum(route.billed for route in (*self._routes, *self._farewells.values())),
            credit=self._credit,
        )

    def _is_healthy(self) -> bool:
        if self._paused:
            return self._state is RelayState.STANDBY
        return self._state in {RelayState.LIVE, RelayState.ROTATING}

    # The walk through the states.

    async def _drive(self) -> None:
        while True:
            await self._until_wanted()
            failure: RelaydError | None = None
            try:
                await self._one_session()
            except RelaydError as fault:
                failure = fault
            except Exception as fault:  # noqa: BLE001 - the relay goes on
                _log.exception("unforeseen")
                failure = InternalFault(f"unforeseen {type(fault).__name__}: {fault}")
            finally:
                await self._end_routes()
            if failure:
                await self._wait_after(failure)

    async def _until_wanted(self) -> None:
        """Stand by until there is a picture to swap and nobody paused the relay."""
        while not self._wanted():
            self._enter(RelayState.STANDBY, "paused" if self._paused else self._source_reason)
            await self._sleep(WATCH_INTERVAL)

    def _wanted(self) -> bool:
        if self._paused or self._source_ended:
            return False
        away = self._clock.now() - self._source_lost_at
        return self._source_alive or (bool(self._routes) and away < SOURCE_PATIENCE)

    async def _one_session(self) -> None:
        """Open a route and keep it, or its successors, live until nobody wants it."""
        opened = self._clock.now()
        route = self._shown = self._add_route()
        await route.open(self._face, self._enter)
        self._rotate_at = self._next_rotation()
        self._enter(RelayState.LIVE)
        while self._wanted():
            await asyncio.sleep(WATCH_INTERVAL)
            route = self._rotated(route)
            try:
                route.check()
            except LinkError as fault:
                await self._rejoin(route, fault)
            self._note_health(route)
            if self._clock.now() - opened > SOURCE_PATIENCE:
                self._backoff.reset()

    async def _rejoin(self, route: Route, fault: LinkError) -> None:
        """Bring the session back after its link failed; raise the fault if that is in vain."""
        for _ in range(REJOIN_TRIES):
            if not fault.retryable:
                break
            self._reconnects["link"] += 1
            self._enter(RelayState.DEGRADED, str(fault))
            try:
                await route.rejoin(lambda _stage: None)
            except LinkError as again:
                fault = again
            else:
                return
        raise fault

    def _note_health(self, route: Route) -> None:
        """Tell live from degraded."""
        if not self._source_alive:
            self._enter(RelayState.DEGRADED, self._source_reason)
        elif route.degraded:
            self._enter(RelayState.DEGRADED, route.degraded)
        else:
            self._enter(RelayState.ROTATING if self._rotation else RelayState.LIVE)

    # Make before break: a new session takes over before the old one is closed.

    def _rotated(self, route: Route) -> Route:
        """Give the route that is to be live now: `route`, or the one that takes over from it."""
        if self._rotation is None:
            if self._source_alive and self._clock.now() >= self._rotate_at:
                self._rotation = asyncio.create_task(self._open_successor(), name="relayd-rotation")
            return route
        if not self._rotation.done():
            return route
        rotation, self._rotation = self._rotation, None
        try:
            successor = rotation.result()
        except RelaydError as fault:
            _log.warning("rotation.failed", reason=str(fault), retry_in=ROTATION_RETRY)
            self._rotate_at = self._clock.now() + ROTATION_RETRY
            return route
        self._rotate_at = self._next_rotation()
        self._reconnects["session"] += 1
        self._shown = successor
        self._dismiss(route)
        return successor

    async def _open_successor(self) -> Route:
        successor = self._add_route()
        try:
            await successor.open(self._face, lambda _stage: None)
        except BaseException:
            self._dismiss(successor)
            raise
        return successor

    def _next_rotation(self) -> float:
        return self._clock.now() + (self._settings.akool.session_max or float("inf"))

    def _add_route(self) -> Route:
        route = Route(self._parts)
        self._routes = (*self._routes, route)
        return route

    def _dismiss(self, route: Route) -> None:
        """Close a route on the side, while the relay goes on."""
        self._routes = tuple(other for other in self._routes if other is not route)
        farewell = asyncio.create_task(self._close(route), name="relayd-farewell")
        self._farewells[farewell] = route

    async def _close(self, route: Route) -> None:
        try:
            await route.close()
        except Exception:  # noqa: BLE001 - the relay goes on
            _log.exception("unforeseen")
        finally:
            self._billed += route.billed
            del self._farewells[asyncio.current_task()]

    async def _end_routes(self) -> None:
        """Close every route, and wait until that is done."""
        self._shown = None
        rotation, self._rotation = self._rotation, None
        if rotation:
            await _end([rotation])
        for route in self._routes:
            self._dismiss(route)
        self.pipeline.forget()
        await self._say_farewell()

    async def _say_farewell(self) -> None:
        while self._farewells:
            await asyncio.wait([task for task in self._farewells if task])

    async def _close_leftovers(self) -> None:
        """Close what an earlier life of this relay left open, until all of it is."""
        backoff = Backoff(*OPEN_BACKOFF)
        while True:
            try:
                results = await close_leftovers(self._client, self._journal)
            except RelaydError as fault:
                _log.error("leftovers.failed", reason=str(fault))
                results = []
            else:
                if all(result.closed for result in results):
                    return
            await asyncio.sleep(backoff.next_wait())

    async def _follow_credit(self) -> None:
        """Look the account's credit up now and then, where the service tells it."""
        while True:
            try:
                self._credit = await self._client.credit()
            except RelaydError as fault:
                _log.debug("credit.unknown", reason=str(fault))
            await asyncio.sleep(CREDIT_INTERVAL)

    # Waiting after failures.

    async def _wait_after(self, failure: RelaydError) -> None:
        if failure.retryable or isinstance(failure, LinkError):
            wait = self._backoff.next_wait()
            self._enter(RelayState.BACKOFF, str(failure))
        else:
            wait = BLOCKED_RETRY
            self._enter(RelayState.BLOCKED, str(failure))
        self._reconnects["session"] += 1
        await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not longer than until somebody changes what is wanted."""
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            return
        self._nudged.clear()

    def _enter(self, state: RelayState, reason: str = "") -> None:
        """Change the state: the one place that logs it, shows it and tells it."""
        if (state, reason) == (self._state, self._reason):
            return
        _log.info("state", was=self._state.value, now=state.value, reason=reason)
        if state is not self._state:
            self._state_since = self._clock.now()
        self._state, self._reason = state, reason
        self.pipeline.say(state.words, reason)
        self._on_change(state, reason)

    # What the media threads tell, brought into the loop.

    def _send(self, frame: SourceFrame) -> None:
        """Give a paced frame to every route; in the pacer's thread."""
        for route in self._routes:
            if route.publish(frame) and route is self._shown:
                self._sent_count += 1

    def _take_swapped(self, route: Route, frame: SwappedFrame) -> None:
        """Show a swapped frame if it is the shown route's; in that route's arrival thread."""
        if route is self._shown and self._source_alive:
            self._swapped_count += 1
            self.pipeline.show(frame)

    def _from_thread(self, hear: Callable[..., None], event: SourceEvent | OutputEvent) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(hear, event)

    def _hear_source(self, event: SourceEvent) -> None:
        match event:
            case SourceOpened():
                self._source_alive, self._source_reason = True, ""
                _log.info("source.opened", **_fields(event))
            case SourceDown(error, retry_in):
                self._lose_source(str(error))
                _log.warning("source.down", reason=str(error), retry_in=round(retry_in, 2))
            case SourceEnded():
                self._source_ended = True
                self._lose_source("the source came to its end")
        self._nudged.set()

    def _lose_source(self, reason: str) -> None:
        if self._source_alive:
            self._source_lost_at = self._clock.now()
        self._source_alive, self._source_reason = False, reason
        self.pipeline.forget()

    def _hear_output(self, event: OutputEvent) -> None:
        self._outputs[event.output] = event.reason or "ok"
        if event.change is OutputChange.BACK:
            self._reconnects["output"] += 1
        log = _log.info if event.change is OutputChange.BACK else _log.error
        log(f"output.{event.change.value}", output=event.output, reason=event.reason)


def _fields(event: SourceOpened) -> dict[str, object]:
    return {"width": event.width, "height": event.height, "fps": event.fps, "codec": event.codec}


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
