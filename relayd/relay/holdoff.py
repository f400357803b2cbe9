"""Waiting times after failed sessions, so that no service is flooded and no money is wasted.

A temporary failure is retried after a short wait that doubles; a refusal (credentials, quota, face)
after ten minutes, or when a new reader comes; a lost answer, which may have left a billed session
with an unknown id, after minutes that double. The third lost answer ends all tries: then a person
has to look at the account.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from relayd.clock import Backoff
from relayd.errors import JoinRefused, RelaydError

OPEN_BACKOFF = 0.5, 30.0
"""s, first and longest wait between two tries to open a session."""
SUCCESSOR_BACKOFF = 60.0, 600.0
"""s, the same for a successor, while the old session still works."""
GOOD_AFTER = 30.0
"""s of a live session after which the next failure counts as the first again."""
BLOCKED_RETRY = 600.0
"""s after which even a refusal is retried: the account may have been topped up or unblocked."""
DOUBT_WAIT = 300.0
"""s after the first lost answer, twice that after the next: a service ends a session that nobody
joins within minutes."""
MAX_DOUBTS = 3
"""Lost answers within DOUBT_MEMORY after which no session is opened until the user resumes."""
DOUBT_MEMORY = 6 * 3600.0
"""s that a lost answer counts."""
DOUBT_TEXT = "sessions may be open at the service: look at your account"


class Hold(Enum):
    """Why no session is opened now."""

    NONE = "none"
    """One may be opened."""
    FAILED = "failed"
    """A temporary failure."""
    REFUSED = "refused"
    """Needs a person; retried after a long wait, or when a new reader comes."""
    DOUBTFUL = "doubtful"
    """Answers were lost too often: nothing is tried until a person has acted."""


@dataclass(slots=True)
class _Wait:
    hold: Hold = Hold.NONE
    reason: str = ""
    soonest: float = float("-inf")
    """Not before this time, even for a new reader."""
    latest: float = float("-inf")
    """From this time on in any case."""


class Holdoff:
    """The waits between sessions of one relay."""

    def __init__(
        self, doubts: Iterable[float] = (), *, jitter: Callable[[], float] = random.random
    ) -> None:
        """Start with the times (monotonic s) of answers that an earlier run lost."""
        self._backoff = Backoff(*OPEN_BACKOFF, jitter=jitter)
        self._successor_backoff = Backoff(*SUCCESSOR_BACKOFF, jitter=jitter)
        self._wait = _Wait()
        self._has_new_reader = False
        self._not_before = float("-inf")
        self._successor_not_before = float("-inf")
        self._doubts: list[float] = []
        self._doubt_wait = _Wait()
        for moment in sorted(doubts):
            self.on_lost_answer(moment)

    def reason(self, now: float) -> str:
        """Return why no session is opened now, as text."""
        return self._counting_wait(now).reason

    def hold(self, now: float) -> Hold:
        """Return what prevents a session now."""
        wait = self._counting_wait(now)
        if wait.hold is Hold.FAILED and now >= wait.latest:
            return Hold.NONE
        return wait.hold

    def allows(self, now: float) -> bool:
        """Whether a session may be opened."""
        wait = self._wait
        due = wait.soonest if self._has_new_reader else wait.latest
        return now >= max(due, self._not_before, self._doubt_wait.latest)

    def allows_successor(self, now: float) -> bool:
        """Whether a session may be opened that takes over from a live one."""
        return now >= max(self._successor_not_before, self._doubt_wait.latest)

    def comes_soon(self, now: float) -> bool:
        """Whether only the wait after a short session prevents one."""
        return self.hold(now) is Hold.NONE and now < self._not_before

    def deadlines(self) -> tuple[float, ...]:
        """Return the times at which one of the results changes without an event."""
        return (
            self._wait.soonest,
            self._wait.latest,
            self._not_before,
            self._doubt_wait.latest,
            self._successor_not_before,
        )

    def on_open(self) -> None:
        """Clear the wait, as a session is being opened."""
        self._wait = _Wait()

    def on_failure(self, error: RelaydError, now: float, *, lifetime: float) -> None:
        """Start a wait after the only session, live for `lifetime` s, has failed."""
        self.reset_after(lifetime)
        pause = self._backoff.next_wait()
        self._has_new_reader = False
        if error.retryable or isinstance(
            error, JoinRefused
        ):  # a refused join concerns that session only
            pause = max(pause, min(error.retry_after or 0.0, BLOCKED_RETRY))
            self._wait = _Wait(Hold.FAILED, str(error), now + pause, now + pause)
        else:
            self._wait = _Wait(Hold.REFUSED, str(error), now + pause, now + BLOCKED_RETRY)

    def on_successor_failure(self, now: float, *, retry_after: float = 0.0) -> None:
        """Start a wait after a successor failed or was given up; the old session goes on.

        `retry_after` is the wait that the service asked for, in s.
        """
        pause = max(self._successor_backoff.next_wait(), min(retry_after, BLOCKED_RETRY))
        self._successor_not_before = now + pause

    def on_takeover(self, *, lifetime: float) -> None:
        """Note that a successor took over from a session that was live for `lifetime` s."""
        self._successor_backoff.reset()
        self.reset_after(lifetime)

    def on_end(self, now: float, *, lifetime: float) -> None:
        """Note that a session, live for `lifetime` s, is no longer wanted.

        After a short one the next has to wait: readers that come and go must not flood the service.
        """
        self.reset_after(lifetime)
        if lifetime <= GOOD_AFTER:
            self._not_before = now + self._backoff.next_wait()

    def reset_after(self, lifetime: float) -> None:
        """Count the next failure as the first again if the session was live long enough."""
        if lifetime > GOOD_AFTER:
            self._backoff.reset()

    def on_lost_answer(self, now: float) -> None:
        """Start a wait after a lost answer: the service may have opened an unknown session."""
        self._doubts = [moment for moment in self._doubts if moment > now - DOUBT_MEMORY]
        self._doubts.append(now)
        if len(self._doubts) >= MAX_DOUBTS:
            hold, until = Hold.DOUBTFUL, float("inf")
            reason = f"{DOUBT_TEXT}, then `relayd resume`"
        else:
            pause = DOUBT_WAIT * 2.0 ** (len(self._doubts) - 1)
            hold, until = Hold.FAILED, now + pause
            reason = (
                "the answer to opening a session was lost, so one may be open at the service:"
                f" the next try is in {pause / 60:.0f} min"
            )
        self._doubt_wait = _Wait(hold, reason, until, until)

    def on_arrival(self) -> None:
        """Note a new reader, for whom a refusal may be retried early."""
        self._has_new_reader = True

    def on_user_action(self, *, account_checked: bool) -> None:
        """End the waits, as the user changed something.

        The wait after lost answers ends only if the user has checked the account.
        """
        self._not_before = self._successor_not_before = float("-inf")
        self._wait = _Wait()
        if account_checked:
            self._doubts, self._doubt_wait = [], _Wait()

    def _counting_wait(self, now: float) -> _Wait:
        """Return the wait after lost answers while it lasts, as no other is longer."""
        return self._doubt_wait if now < self._doubt_wait.latest else self._wait
