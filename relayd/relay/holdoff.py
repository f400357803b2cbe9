"""How long no session is asked for after one failed: no service is hammered, no money lost.

A failure that may pass is tried again after a short wait that doubles; a refusal (credentials,
quota, face) after ten minutes, or when somebody comes again; and an answer that was lost, behind
which a paid session may stand that nobody knows of, after minutes that double, until the third
ends all tries: then a person has to look at the account.
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
"""s that a session was live after which the next failure counts as the first again."""
BLOCKED_RETRY = 600.0
"""s after which even a refusal is tried again: a person may have topped up or unblocked."""
DOUBT_WAIT = 300.0
"""s after the first lost answer, twice that after the next: a service gives up a session that
nobody joins within minutes."""
MAX_DOUBTS = 3
"""Lost answers within DOUBT_MEMORY after which nothing is asked for until a person resumes."""
DOUBT_MEMORY = 6 * 3600.0
"""s that a lost answer counts."""
DOUBT_TEXT = "sessions may be open at the service: look at your account"


class Hold(Enum):
    """Why no session is asked for."""

    NONE = "none"
    """Nothing is against it."""
    FAILED = "failed"
    """Something failed that may pass."""
    REFUSED = "refused"
    """A person is needed; tried again after long, or when somebody comes again."""
    DOUBTFUL = "doubtful"
    """Answers were lost too often: a person is needed, and nothing is tried without."""


@dataclass(slots=True)
class _Wait:
    hold: Hold = Hold.NONE
    reason: str = ""
    soonest: float = float("-inf")
    """Not before this moment, whoever comes."""
    latest: float = float("-inf")
    """From this moment on in any case."""


class Holdoff:
    """The waits between sessions of one relay."""

    def __init__(
        self, doubts: Iterable[float] = (), *, jitter: Callable[[], float] = random.random
    ) -> None:
        """Begin with the moments (monotonic s) of lost answers that an earlier run left."""
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
        """Say why nothing is asked for now, in words."""
        return self._counting_wait(now).reason

    def hold(self, now: float) -> Hold:
        """Say what is against a session now."""
        wait = self._counting_wait(now)
        if wait.hold is Hold.FAILED and now >= wait.latest:
            return Hold.NONE
        return wait.hold

    def allows(self, now: float) -> bool:
        """Whether a session may be asked for."""
        wait = self._wait
        due = wait.soonest if self._has_new_reader else wait.latest
        return now >= max(due, self._not_before, self._doubt_wait.latest)

    def allows_successor(self, now: float) -> bool:
        """Whether a session may be asked for that takes over from a live one."""
        return now >= max(self._successor_not_before, self._doubt_wait.latest)

    def comes_soon(self, now: float) -> bool:
        """Whether only the wait after a short session is against it."""
        return self.hold(now) is Hold.NONE and now < self._not_before

    def deadlines(self) -> tuple[float, ...]:
        """Return the moments at which time alone changes one of the answers."""
        return (
            self._wait.soonest,
            self._wait.latest,
            self._not_before,
            self._doubt_wait.latest,
            self._successor_not_before,
        )

    def on_open(self) -> None:
        """A session is asked for: what was waited for is over."""
        self._wait = _Wait()

    def on_failure(self, error: RelaydError, now: float, *, lifetime: float) -> None:
        """The only session failed after it was live for `lifetime` s."""
        self.reset_after(lifetime)
        pause = self._backoff.next_wait()
        self._has_new_reader = False
        if error.retryable or isinstance(error, JoinRefused):  # of that session's channel
            pause = max(pause, min(error.retry_after or 0.0, BLOCKED_RETRY))
            self._wait = _Wait(Hold.FAILED, str(error), now + pause, now + pause)
        else:
            self._wait = _Wait(Hold.REFUSED, str(error), now + pause, now + BLOCKED_RETRY)

    def on_successor_failure(self, now: float, *, retry_after: float = 0.0) -> None:
        """A successor failed or was given up; the old session goes on.

        `retry_after` s are what the service asked for.
        """
        pause = max(self._successor_backoff.next_wait(), min(retry_after, BLOCKED_RETRY))
        self._successor_not_before = now + pause

    def on_takeover(self, *, lifetime: float) -> None:
        """A successor has taken over from a session that was live for `lifetime` s."""
        self._successor_backoff.reset()
        self.reset_after(lifetime)

    def on_end(self, now: float, *, lifetime: float) -> None:
        """Nobody wants the session any more that was live for `lifetime` s.

        After a short one the next has to wait: who comes and goes shall not hammer the service.
        """
        self.reset_after(lifetime)
        if lifetime <= GOOD_AFTER:
            self._not_before = now + self._backoff.next_wait()

    def reset_after(self, lifetime: float) -> None:
        """Count the next failure as the first again after a session that was live for long."""
        if lifetime > GOOD_AFTER:
            self._backoff.reset()

    def on_lost_answer(self, now: float) -> None:
        """An answer was lost: the service may have opened a session that nobody knows."""
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
                f" the next try waits {pause / 60:.0f} min"
            )
        self._doubt_wait = _Wait(hold, reason, until, until)

    def on_arrival(self) -> None:
        """Somebody comes again, and may find that a refusal was dealt with."""
        self._has_new_reader = True

    def on_user_action(self, *, account_checked: bool) -> None:
        """A person changed what is wanted, which ends the waits.

        Not those after lost answers: they end when a person has looked at the account.
        """
        self._not_before = self._successor_not_before = float("-inf")
        self._wait = _Wait()
        if account_checked:
            self._doubts, self._doubt_wait = [], _Wait()

    def _counting_wait(self, now: float) -> _Wait:
        """Return the wait for lost answers while it lasts: no other is longer."""
        return self._doubt_wait if now < self._doubt_wait.latest else self._wait
