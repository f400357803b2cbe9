"""Whether the swapped user's sound comes, and what to try if it does not.

It uses neither threads nor the SDK: each call passes the time. Nothing here ends a link: sound that
does not come costs no picture.
"""

from relayd.rtc.agora.events import Connected, Reconnected, SdkEvent, SoundOffered, UserJoined

SUBSCRIBE_EVERY = 2.5
"""s between two subscriptions while no sound comes, as one may be lost."""
MOST_TRIES = 4
"""Subscriptions after a user joined: whether the service sends sound at all is unknown."""
SILENT_FOR = 3.0
"""s of a subscribed, unmuted user without a block, after which the library may need playout."""


class Hearing:
    """The sound of one user, from the first join to the end of the link."""

    def __init__(self, user: str, *, is_wanted: bool) -> None:
        """Wait for the sound of `user`, or for none."""
        self._user, self._is_wanted = user, is_wanted
        self._offered_at: float | None = None
        self._tries, self._try_at = 0, float("inf")
        self.plays_out = False
        """Whether the connection must play sound out: some libraries deliver none otherwise."""
        self.heard_at = float("-inf")
        """When the newest block came: written by the thread that delivers sound."""

    def handle(self, event: SdkEvent, now: float) -> None:
        """Note an event."""
        match event:
            case UserJoined(user) if user == self._user:
                self._begin(now)
            case Connected() | Reconnected():
                self._begin(now)
            case SoundOffered(user, is_on=True) if user == self._user:
                self._offered_at = now if self._offered_at is None else self._offered_at
            case SoundOffered(user, is_on=False) if user == self._user:
                self._offered_at = None

    def wants_subscription(self, now: float) -> bool:
        """Whether the user's sound should be subscribed now; at once after it joined."""
        if not self._is_wanted or now < self._try_at or self._tries == MOST_TRIES:
            return False
        if self._offered_at is not None:
            return False
        self._tries += 1
        self._try_at = now + SUBSCRIBE_EVERY
        return True

    def wants_playout(self, now: float) -> bool:
        """Whether to join again with `plays_out`, which is set then; once in a link."""
        offered_at = self._offered_at
        if not self._is_wanted or self.plays_out or offered_at is None:
            return False
        if self.heard_at > float("-inf"):  # it delivers: that user is silent
            return False
        if now - offered_at < SILENT_FOR:
            return False
        self._offered_at = None
        self.plays_out = True
        return True

    def _begin(self, now: float) -> None:
        self._offered_at = None
        self._tries, self._try_at = 0, now
