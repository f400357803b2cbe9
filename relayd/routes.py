"""All routes of a relay: the one whose pictures are shown, a successor, those being closed."""

import asyncio
from collections.abc import Callable, Iterator

from relayd.frames import SourceFrame, SwappedFrame
from relayd.logs import get
from relayd.route import Route, RouteParts

_log = get("route")


class Routes:
    """Keeps count of every route from its making to the end of its close."""

    def __init__(self, parts: RouteParts, show: Callable[[SwappedFrame], None]) -> None:
        """Have none; `show` gets the swapped frames of the route that is shown, in its thread."""
        self._parts, self._show = parts, show
        self._open: tuple[Route, ...] = ()
        self._farewells: dict[asyncio.Task[None] | None, Route] = {}
        self._past_seconds = 0.0
        self.shown: Route | None = None
        """Whose pictures the outputs get."""
        self.sent = 0
        """Source frames that the shown route took."""
        self.swapped = 0
        """Swapped frames that came back on the shown route."""

    def __iter__(self) -> Iterator[Route]:
        return iter(self._open)

    @property
    def sessions_open(self) -> int:
        """Sessions that are open at the service, as far as is known here."""
        return sum(route.session_id is not None for route in self._all())

    @property
    def billed(self) -> float:
        """Seconds that the service has counted since the start, over all sessions."""
        return self._past_seconds + sum(route.billed for route in self._all())

    def add(self) -> Route:
        """Make a route; it gets every source frame from now on that it can take."""
        route = Route(self._parts, self._take)
        self._open = (*self._open, route)
        return route

    def publish(self, frame: SourceFrame) -> None:
        """Give a source frame to every route; in the pacer's thread."""
        for route in self._open:
            if route.publish(frame) and route is self.shown:
                self.sent += 1

    def dismiss(self, route: Route) -> None:
        """Close a route on the side, while the relay goes on."""
        self._open = tuple(other for other in self._open if other is not route)
        if route is self.shown:
            self.shown = None
        self._farewells[asyncio.create_task(self._close(route), name="relayd-farewell")] = route

    async def end(self) -> None:
        """Close every route, and wait until that is done."""
        for route in self._open:
            self.dismiss(route)
        while self._farewells:
            await asyncio.wait([task for task in self._farewells if task])

    async def _close(self, route: Route) -> None:
        try:
            await route.close()
        except Exception:  # noqa: BLE001 - the other routes go on
            _log.exception("unforeseen")
        finally:
            self._past_seconds += route.billed
            del self._farewells[asyncio.current_task()]

    def _take(self, route: Route, frame: SwappedFrame) -> None:
        """Show a swapped frame if it is the shown route's; in that route's arrival thread."""
        if route is self.shown:
            self.swapped += 1
            self._show(frame)

    def _all(self) -> tuple[Route, ...]:
        return (*self._open, *self._farewells.values())
