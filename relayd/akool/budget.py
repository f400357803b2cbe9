"""The day's budget: session time since local midnight, compared with `[akool] daily_limit`.

Pure functions: the caller passes the history, the open sessions, the time and the day.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum

from relayd.akool.history import ClosedSession

NEAR_SHARE = 0.8
"""Share of the limit from which on relayd warns that little is left."""
SHORTEST_RECHECK = 1.0
"""s before the next check, at least: rounding could make it come a little too early, and loop."""
LONGEST_RECHECK = 60.0
"""s before the next check, at most, if there is a limit: another relay with the same journal may
open a session, and the clock may be changed."""


class BudgetState(Enum):
    """How much of the day's limit is used."""

    OK = "ok"
    """There is no limit, or less than 80 % of it is used."""
    NEAR = "near"
    """80 % or more is used."""
    SPENT = "spent"
    """All of it is used: no session may be open before the next day."""


@dataclass(frozen=True, slots=True)
class LocalDay:
    """A local calendar day, which need not have 24 hours; wall time, s since 1970."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class OpenTime:
    """How long an open session has been open."""

    seconds: float
    """So far, in total."""
    orphaned: bool = False
    """No process owns it: it counts until it is closed."""


@dataclass(frozen=True, slots=True)
class BudgetReading:
    """How much of the day's limit is used."""

    state: BudgetState
    spent: float
    """s that sessions were open since local midnight, summed."""
    limit: float
    """s a day; 0 if there is none."""
    next_change_in: float
    """s from now, by a clock that does not jump, until the next check: when `state` changes if the
    same number of sessions stays open, at midnight, and after LONGEST_RECHECK at the latest."""
    text: str
    """The state as text for people; empty if there is no limit."""


def local_day(wall_now: float, zone: tzinfo | None = None) -> LocalDay:
    """Return the day of a moment in a time zone; the machine's own if none is given."""
    today = datetime.fromtimestamp(wall_now, zone).date()
    return LocalDay(_midnight(today, zone), _midnight(today + timedelta(days=1), zone))


def read_budget(
    closed: Sequence[ClosedSession],
    open_times: Sequence[OpenTime],
    limit_minutes: float,
    wall_now: float,
    day: LocalDay,
) -> BudgetReading:
    """Read the budget of `day` at `wall_now`, a moment of that day.

    A session that began before midnight counts from midnight on.
    """
    limit = limit_minutes * 60.0
    since_midnight = max(0.0, wall_now - day.start)
    spent = sum(session.seconds_between(day.start, day.end) for session in closed)
    spent += sum(min(one.seconds, since_midnight) for one in open_times)
    state = _state(spent, limit)
    changes = [day.end - wall_now]
    if limit:
        changes.append(LONGEST_RECHECK)
        if open_times:
            marks = (NEAR_SHARE * limit, limit)
            changes += [(mark - spent) / len(open_times) for mark in marks if mark > spent]
    orphaned = sum(one.orphaned for one in open_times)
    return BudgetReading(
        state,
        spent,
        limit,
        max(SHORTEST_RECHECK, min(changes)),
        _describe(state, spent, limit, orphaned),
    )


def _state(spent: float, limit: float) -> BudgetState:
    if not limit or spent < NEAR_SHARE * limit:
        return BudgetState.OK
    return BudgetState.NEAR if spent < limit else BudgetState.SPENT


def _describe(state: BudgetState, spent: float, limit: float, orphaned: int) -> str:
    if not limit:
        return ""
    minutes = f"{limit / 60:g} minutes"
    if state is BudgetState.SPENT:
        text = f"today's limit of {minutes} is used up; sessions are opened again after midnight"
    else:
        text = f"{math.floor(spent / 60)} of today's {minutes} are used"
    if orphaned:
        text += f"; {orphaned} left open still count: relayd sessions close"
    return text


def _midnight(day: date, zone: tzinfo | None) -> float:
    return datetime.combine(day, time.min, zone).timestamp()
