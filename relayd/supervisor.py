"""The supervisor: walks a relay through its states.

It waits until a session is wanted, opens a route, keeps it live through the losses of its
parts, and takes a new one when the old one cannot be saved or has grown old. It leaves nothing
open that nobody needs.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from relayd.clock import Backoff, Clock
from relayd.errors import InternalFault, JoinRefused, LinkError, RelaydError
from relayd.logs import get
from relayd.ondemand import SessionLife
from relayd.relay.pipeline import Pipeline
from relayd.relay.status import RelayState
from relayd.rotation import Rotation
from relayd.route import Route
from relayd.routes import Routes
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


class Supervisor:
    """Where a relay stands, and what it does next."""

    def __init__(
        self,
        wishes: Wishes,
        routes: Routes,
        pipeline: Pipeline,
        clock: Clock,
        *,
        session_max: float,
        on_change: Callable[[RelayState, str], None],
    ) -> None:
        """Stand at the start; `on_change` hears of each state with its reason."""
        self._wishes, self._routes, self._pipeline = wishes, routes, pipeline
        self._clock, self._on_change = clock, on_change
        self.rotation = Rotation(session_max, clock, self._open_successor)
        self.state = RelayState.STARTING
        self.reason = ""
        """Why it is in that state; empty where the state says it all."""
        self.since = clock.now()
        """When it came into that state."""
        self.reconnects = {"link": 0, "session": 0}
        """Links, and sessions, that another one was taken for."""
        self._backoff = Backoff(*OPEN_BACKOFF)
        self._not_before = float("-inf")
        """When the next session may be opened: who comes and goes shall not hammer the service."""

    async def run(self) -> None:
        """Walk, for ever."""
        while True:
            await self._until_wanted()
            failure: RelaydError | None = None
            try:
                await self._one_session()
                self.stand_by()
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
            self.stand_by()
            if await self._wishes.sleep(WATCH_INTERVAL):
                self._not_before = float("-inf")

    async def _one_session(self) -> None:
        """Open a route and keep it, or its successors, live until nobody wants it."""
        route = self._routes.shown = self._routes.add()
        self._wishes.demand.hear_session(SessionLife.UNDERWAY)
        if await self._while_wanted(self._open(route, self.enter), route):
            self._wishes.demand.hear_session(SessionLife.LIVE)
            lived = await self._keep_live(route)
        else:
            lived = 0.0
        if lived <= GOOD_AFTER:
            self._not_before = self._clock.now() + self._backoff.next_wait()

    async def _keep_live(self, route: Route) -> float:
        """Keep a route, or its successors, live until nobody wants it; gives how long, in s."""
        opened = self._clock.now()
        self.rotation.begin()
        while self._wishes.keeps:
            self._note_health(route)
            await asyncio.sleep(WATCH_INTERVAL)
            if route.ends_soon:
                self.rotation.hurry()
            if self._may_rotate() and (successor := self.rotation.step()):
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
            self.enter(RelayState.DEGRADED, str(fault))
            if not fault.retryable or route.short_links >= MOST_SHORT_LINKS:
                break
            self.reconnects["link"] += 1
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
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _note_health(self, route: Route) -> None:
        """Tell live from degraded."""
        if not self._wishes.source.alive:
            self.enter(RelayState.DEGRADED, self._wishes.source.reason)
        elif route.degraded:
            self.enter(RelayState.DEGRADED, route.degraded)
        else:
            self.enter(RelayState.ROTATING if self.rotation.in_progress else RelayState.LIVE)

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
        return wishes.source.alive and (wishes.demand.asks or self.rotation.in_progress)

    def _take_over(self, successor: Route, old: Route) -> Route:
        self.reconnects["session"] += 1
        self._routes.shown = successor
        self._routes.dismiss(old)
        return successor

    async def _end_routes(self) -> None:
        """Close every session, and wait until that is done."""
        self._routes.shown = None
        self._pipeline.forget()
        await self.rotation.end()
        await self._routes.end()

    async def _wait_after(self, failure: RelaydError) -> None:
        self.reconnects["session"] += 1
        if failure.retryable or isinstance(failure, JoinRefused):  # of that session's channel
            self.enter(RelayState.BACKOFF, str(failure))
            asked_for = min(failure.retry_after or 0.0, BLOCKED_RETRY)
            await self._wishes.sleep(max(self._backoff.next_wait(), asked_for))
        else:
            self.enter(RelayState.BLOCKED, str(failure))
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

    def stand_by(self) -> None:
        """Show standby, and say why."""
        comes_soon = self._wishes.asks and self._clock.now() < self._not_before
        self.enter(RelayState.STANDBY, SOON if comes_soon else self._wishes.why_none)

    def enter(self, state: RelayState, reason: str = "") -> None:
        """Change the state: the one place that logs it, shows it and tells it."""
        if (state, reason) == (self.state, self.reason):
            return
        _log.info("state", was=self.state.value, now=state.value, reason=reason)
        if state is not self.state:
            self.since = self._clock.now()
        self.state, self.reason = state, reason
        if state is not RelayState.STOPPED:  # the outputs are closed by then
            self._pipeline.say(*state.on_picture(reason))
        self._on_change(state, reason)
