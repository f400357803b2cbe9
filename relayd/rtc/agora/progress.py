"""The state machine of a link: takes events, returns what to report, and decides when to give up.

It uses neither threads nor the SDK: each call passes the time, so that deadlines can be tested
without waiting.
"""

from enum import Enum

from relayd.errors import JoinFailed, LinkError, LinkLost, LinkStalled
from relayd.rtc.agora import error_codes
from relayd.rtc.agora.events import (
    Connected,
    ConnectionLost,
    PictureCame,
    Reconnected,
    Reconnecting,
    SdkEvent,
    TokenEnding,
    UserJoined,
    UserLeft,
)
from relayd.rtc.link import LinkEvent, LinkEventKind

JOIN_TIMEOUT = 12.0
"""s from connect() to the channel: it usually takes 0.2 s, and the SDK itself would
try for twenty minutes. A success is the callback, never connect()'s own 0 (issue #24)."""
KEY_FRAME_EVERY = 1.0
"""s between two requests for a key frame while no picture comes; senders accept this rate."""
SUBSCRIBE_EVERY = 2.5
"""s between two subscriptions while no picture comes, as one may be lost."""
RENEW_AT = 0.8
"""Part of a token's lifetime after which another is requested: the server's own warning, 30 s
before the end, does not always come."""


class Stage(Enum):
    """The stage of a link."""

    JOINING = "joining"
    """We are not in the channel yet."""
    WAITING = "waiting"
    """In the channel; the swapped user's first picture has not come."""
    LIVE = "live"
    """In the channel, and pictures have come."""


class Break(Enum):
    """What may be broken while a link is live."""

    CONNECTION = "connection"
    """The connection to the channel; the SDK repairs it."""
    ENGINE = "swap engine"
    """The swapped user left; it may come back."""


class Progress:
    """The stages and deadlines of one link."""

    def __init__(
        self, swapped_user: str, *, first_frame_timeout: float, recovery_timeout: float, now: float
    ) -> None:
        """Begin at `now`."""
        self._swapped_user = swapped_user
        self._first_frame_timeout, self._recovery_timeout = first_frame_timeout, recovery_timeout
        self._give_up_at = now + JOIN_TIMEOUT
        self._timeout_error: LinkError = JoinFailed(
            f"Agora did not answer within {JOIN_TIMEOUT:g} s"
        )
        self._broken: dict[Break, str] = {}
        self._ask_again_at = self._subscribe_again_at = now
        self._renew_at = float("inf")
        self.stage = Stage.JOINING
        self.awaits_picture = True
        """Whether the next picture must be reported: read by the thread that delivers pictures."""
        self.picture_at = float("-inf")
        """When the newest picture came: written by the thread that delivers pictures."""

    def set_token_lifetime(self, seconds: float, now: float) -> None:
        """Note how many seconds the token in use is still valid."""
        self._renew_at = now + max(0.0, seconds) * RENEW_AT

    def handle(  # noqa: PLR0911 - one row an event
        self, event: SdkEvent, now: float
    ) -> list[LinkEvent]:
        """Handle an event; returns what to report. Raises the LinkError that ends the link."""
        if end := error_codes.end_of(event, joining=self.stage is Stage.JOINING):
            raise end
        match event:
            case Connected():
                return self._joined(now)
            case PictureCame():
                return self._picture_came()
            case Reconnecting(reason):
                return self._broke(Break.CONNECTION, error_codes.describe_reason(reason), now)
            case ConnectionLost():
                return self._broke(Break.CONNECTION, "still no connection to the channel", now)
            case Reconnected():
                return self._reconnected(now)
            case UserLeft(user) if user == self._swapped_user:
                return self._broke(Break.ENGINE, "the swap engine left the channel", now)
            case UserJoined(user) if user == self._swapped_user:
                self._expect_pictures(now)
            case TokenEnding():
                return self._token_expires()
        return []  # other users, or events for the link's log and figures

    def rejoin(self, why: str, now: float) -> list[LinkEvent]:
        """Note that the channel is left to join it again; returns what to report."""
        return self._broke(Break.CONNECTION, why, now)

    def check(self, now: float) -> list[LinkEvent]:
        """Check the deadlines; returns what to report. Raises the LinkError when time is up."""
        if now >= self._give_up_at:
            raise self._timeout_error
        if now >= self._renew_at:
            return self._token_expires()
        return []

    def wants_key_frame(self, now: float) -> bool:
        """Whether a key frame should be asked for now; at most once each KEY_FRAME_EVERY."""
        is_silent = now - self.picture_at > KEY_FRAME_EVERY
        if self.stage is Stage.JOINING or not is_silent or now < self._ask_again_at:
            return False
        self._ask_again_at = now + KEY_FRAME_EVERY
        return True

    def wants_subscription(self, now: float) -> bool:
        """Whether the swapped user should be subscribed again now."""
        if self.stage is Stage.JOINING or not self.awaits_picture:
            return False
        if now < self._subscribe_again_at:
            return False
        self._subscribe_again_at = now + SUBSCRIBE_EVERY
        return True

    def _joined(self, now: float) -> list[LinkEvent]:
        if self.stage is not Stage.JOINING:
            return self._reconnected(now)
        self.stage = Stage.WAITING
        limit = self._first_frame_timeout
        self._give_up_at = now + limit
        self._timeout_error = LinkStalled(f"no swapped picture within {limit:g} s of the join")
        self._expect_pictures(now)
        return [LinkEvent(LinkEventKind.JOINED)]

    def _reconnected(self, now: float) -> list[LinkEvent]:
        self._expect_pictures(now)
        return self._repaired(Break.CONNECTION)

    def _expect_pictures(self, now: float) -> None:
        """Expect a picture that needs a key frame: request it, at once and until it comes."""
        self.awaits_picture = True
        self.picture_at = float("-inf")
        self._ask_again_at = now
        self._subscribe_again_at = now

    def _picture_came(self) -> list[LinkEvent]:
        self.awaits_picture = False
        if self.stage is Stage.WAITING:
            self.stage = Stage.LIVE
            self._broken.clear()
            self._give_up_at = float("inf")
            return [LinkEvent(LinkEventKind.FIRST_PICTURE)]
        return self._repaired(Break.ENGINE)

    def _broke(self, part: Break, why: str, now: float) -> list[LinkEvent]:
        if self.stage is not Stage.LIVE:
            return []  # the current deadline already covers it
        if not self._broken:
            self._give_up_at = now + self._recovery_timeout
        self._broken[part] = why
        self._timeout_error = LinkLost(f"{why}, for {self._recovery_timeout:g} s")
        return [LinkEvent(LinkEventKind.DEGRADED, why)]

    def _repaired(self, part: Break) -> list[LinkEvent]:
        if self._broken.pop(part, None) is None or self._broken:
            return []
        self._give_up_at = float("inf")
        return [LinkEvent(LinkEventKind.RECOVERED)]

    def _token_expires(self) -> list[LinkEvent]:
        self._renew_at = float("inf")
        return [LinkEvent(LinkEventKind.TOKEN_EXPIRING)]
