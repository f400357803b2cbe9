"""Nobody looks, nobody pays: whether a session is wanted, by who reads the cameras.

`Demand` is told who reads and how the session is, and tells the relay whether to open one,
to keep it, and to have the source awake. It lives in the relay's event loop and has no
waits of its own: the relay calls `step` often.
"""

from collections.abc import Callable
from enum import Enum

from relayd.clock import Clock
from relayd.config import CameraSettings, Settings
from relayd.logs import get
from relayd.relay.status import DemandState

_log = get("ondemand")


class SessionLife(Enum):
    """How far the relay's session is."""

    NONE = "none"
    """There is none, and none is being opened or closed."""
    UNDERWAY = "underway"
    """Being opened or closed."""
    LIVE = "live"
    """It was live, and is kept."""


class Demand:
    """Whether anybody wants a session."""

    def __init__(
        self,
        *,
        enabled: bool,
        grace: float,
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with nobody looking; a session is kept `grace` s after the last one left.

        `on_change` is called after each change of the state.
        """
        self._enabled, self._grace, self._clock = enabled, grace, clock
        self._on_change = on_change
        self._readers: dict[str, int | None] = {}
        self._session = SessionLife.NONE
        self._left_at = float("-inf")
        """When the last reader was seen to have left."""
        self.state = DemandState.IDLE if enabled else DemandState.OFF
        self.arrivals = 0
        """Times that somebody came while nobody was looking and nothing was kept."""

    @property
    def readers(self) -> dict[str, int | None]:
        """How many read each camera; None where that cannot be seen."""
        return dict(self._readers)

    @property
    def asks(self) -> bool:
        """Whether a session may be opened."""
        return self.state in {DemandState.OFF, DemandState.OPENING, DemandState.LIVE}

    @property
    def keeps(self) -> bool:
        """Whether a session that is open, or being opened, is kept."""
        return self.asks or self.state is DemandState.GRACE

    @property
    def needs_source(self) -> bool:
        """Whether the source shall be open: also for who came while a session is being closed."""
        return self.keeps or (self.state is DemandState.CLOSING and self.is_looked_at)

    @property
    def is_looked_at(self) -> bool:
        """Whether anybody is known to read a camera."""
        return any(self._readers.values())

    def hear_readers(self, device: str, count: int | None) -> None:
        """Take in how many read a camera now; None: that cannot be seen."""
        if count is None and self._enabled and self._readers.get(device, 0) is not None:
            _log.warning(
                "on_demand.off", reason=f"who reads {device} cannot be seen; a session stays open"
            )
        self._readers[device] = count
        self.step()

    def hear_session(self, life: SessionLife) -> None:
        """Take in how the session is now."""
        self._session = life
        self.step()

    def set_grace(self, grace: float) -> None:
        """Keep a session `grace` s after the last one left, also if that was before now."""
        self._grace = grace
        self.step()

    def step(self) -> None:
        """Take in that time passed."""
        while (follows := self._next()) is not self.state:
            was, self.state = self.state, follows
            if follows is DemandState.GRACE:
                self._left_at = self._clock.now()
            nothing_kept = was in {DemandState.IDLE, DemandState.CLOSING} or (
                was is DemandState.GRACE and self._session is SessionLife.NONE
            )
            if follows is DemandState.OPENING and nothing_kept:
                self.arrivals += 1
            _log.info("on_demand", was=was.value, now=follows.value, readers=self._readers)
            self._on_change()

    def _next(self) -> DemandState:
        if not self._enabled or None in self._readers.values():
            return DemandState.OFF
        live = self._session is SessionLife.LIVE
        match self.state:
            case DemandState.CLOSING if self._session is not SessionLife.NONE:
                return DemandState.CLOSING
            case _ if self.is_looked_at:
                return DemandState.LIVE if live else DemandState.OPENING
            case DemandState.IDLE | DemandState.CLOSING:
                return DemandState.IDLE
            case DemandState.GRACE if self._clock.now() >= self._left_at + self._grace:
                return DemandState.CLOSING
            case _:
                return DemandState.GRACE


def is_on_demand(settings: Settings) -> bool:
    """Whether the settings ask for sessions by who reads the cameras.

    The page counts for nothing here: a forgotten tab would pay for a session day and night.
    """
    are_cameras = [isinstance(output, CameraSettings) for output in settings.output]
    match settings.on_demand.mode:
        case "never":
            return False
        case "always":
            return any(are_cameras)
        case "auto":
            return bool(are_cameras) and all(are_cameras)
