"""The day's budget: what sessions were open since local midnight, against `[akool] daily_limit`.

Pure: who calls brings the history, the open sessions, the time and the day.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum

from relayd.akool.history import ClosedSession

NEAR = 0.8
"""Share of the limit from which on it is told that it comes to its end."""
SHORTEST_LOOK = 1.0
"""s before the next look, at least: by a rounding too early, it would come again at once."""
LONGEST_LOOK = 60.0
"""s before the next look, at most, where there is a limit: another relay on the same journal may
open a session, and the clock may be set."""


class BudgetState(Enum):
    """How the day's spending stands to its limit."""

    OK = "ok"
    """There is no limit, or less than 80 % of it is used."""
    NEAR = "near"
    """80 % or more is used."""
    SPENT = "spent"
    """All of it is used: no session is to be open before the next day."""


@dataclass(frozen=True, slots=True)
class LocalDay:
    """A calendar day of this place, which need not have 24 hours; wall time, s since 1970."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Spending:
    """A session that is open."""

    seconds: float
    """So far, in all."""
    left_over: bool = False
    """Nobody has it in his care: it counts until it is closed."""


@dataclass(frozen=True, slots=True)
class BudgetReading:
    """What of the day's limit is used."""

    state: BudgetState
    spent: float
    """s that sessions were open since local midnight, summed."""
    limit: float
    """s a day; 0 where there is none."""
    next_change_in: float
    """s from now after which to look again, by any clock that does not jump: when `state` changes
    with as many sessions open as now, at midnight, and after LONGEST_LOOK at the latest."""
    words: str
    """The state for a person; empty where there is no limit."""


def local_day(wall_now: float, zone: tzinfo | None = None) -> LocalDay:
    """Return the day of a moment in a time zone, the machine's where none is given."""
    today = datetime.fromtimestamp(wall_now, zone).date()
    return LocalDay(_midnight(today, zone), _midnight(today + timedelta(days=1), zone))


def read_budget(
    closed: Sequence[ClosedSession],
    spending: Sequence[Spending],
    limit_minutes: float,
    wall_now: float,
    day: LocalDay,
) -> BudgetReading:
    """Read the budget of `day` at `wall_now`, which is in it.

    A session that began before midnight counts from midnight on.
    """
    limit = limit_minutes * 60.0
    since_midnight = max(0.0, wall_now - day.start)
    spent = sum(session.seconds_between(day.start, day.end) for session in closed)
    spent += sum(min(one.seconds, since_midnight) for one in spending)
    state = _state(spent, limit)
    changes = [day.end - wall_now]
    if limit:
        changes.append(LONGEST_LOOK)
        if spending:
            marks = (NEAR * limit, limit)
            changes += [(mark - spent) / len(spending) for mark in marks if mark > spent]
    left_over = sum(one.left_over for one in spending)
    return BudgetReading(
        state,
        spent,
        limit,
        max(SHORTEST_LOOK, min(changes)),
        _words(state, spent, limit, left_over),
    )


def _state(spent: float, limit: float) -> BudgetState:
    if not limit or spent < NEAR * limit:
        return BudgetState.OK
    return BudgetState.NEAR if spent < limit else BudgetState.SPENT


def _words(state: BudgetState, spent: float, limit: float, left_over: int) -> str:
    if not limit:
        return ""
    minutes = f"{limit / 60:g} minutes"
    if state is BudgetState.SPENT:
        words = f"today's limit of {minutes} is used up; sessions are opened again after midnight"
    else:
        words = f"{math.floor(spent / 60)} of today's {minutes} are used"
    if left_over:
        words += f"; {left_over} left over count on: relayd sessions close"
    return words


def _midnight(day: date, zone: tzinfo | None) -> float:
    return datetime.combine(day, time.min, zone).timestamp()
