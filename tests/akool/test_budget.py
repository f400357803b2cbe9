"""The day's budget: for all relays of a journal, across restarts, midnight and clock changes."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.akool.budget import (
    LONGEST_RECHECK,
    SHORTEST_RECHECK,
    BudgetReading,
    BudgetState,
    LocalDay,
    OpenTime,
    local_day,
    read_budget,
)
from relayd.akool.history import ClosedSession
from relayd.akool.journal import Journal
from relayd.akool.models import LiveSession
from relayd.errors import Unavailable

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0
DAY = LocalDay(0.0, 24 * HOUR)
NOON = 12 * HOUR


def closed(at: float, seconds: float, relay: str = "studio") -> ClosedSession:
    return ClosedSession("id", relay, at - seconds, at, seconds)


def read(
    *sessions: ClosedSession, still: tuple[float, ...] = (), limit: float = 60, now: float = NOON
) -> BudgetReading:
    return read_budget(sessions, [OpenTime(one) for one in still], limit, now, DAY)


def test_without_a_limit_the_day_is_summed_up_without_a_message() -> None:
    reading = read(closed(NOON, 5 * HOUR), still=(HOUR,), limit=0)
    assert (reading.state, reading.spent, reading.limit) == (BudgetState.OK, 6 * HOUR, 0)
    assert (reading.text, reading.next_change_in) == ("", 12 * HOUR)


@pytest.mark.parametrize(
    ("seconds", "state", "text"),
    [
        (0, BudgetState.OK, "0 of today's 60 minutes are used"),
        (47.99 * 60, BudgetState.OK, "47 of today's 60 minutes are used"),
        (48 * 60, BudgetState.NEAR, "48 of today's 60 minutes are used"),
        (59.99 * 60, BudgetState.NEAR, "59 of today's 60 minutes are used"),
        (
            60 * 60,
            BudgetState.SPENT,
            "today's limit of 60 minutes is used up; sessions are opened again after midnight",
        ),
    ],
)
def test_the_limit_is_near_at_80_percent_and_spent_at_100_percent(
    seconds: float, state: BudgetState, text: str
) -> None:
    reading = read(closed(NOON, seconds))
    assert (reading.state, reading.text) == (state, text)


def test_relays_with_one_journal_share_the_limit() -> None:
    reading = read(closed(NOON, 1200, "studio"), closed(NOON, 1000, "kitchen"), still=(900.0, 500))
    assert (reading.spent, reading.state) == (3600, BudgetState.SPENT)


def test_a_session_over_midnight_counts_from_midnight() -> None:
    reading = read(closed(600.0, 5 * HOUR), still=(9 * HOUR,), now=HOUR)
    assert reading.spent == 600 + HOUR
    assert read(closed(-1.0, HOUR), now=HOUR).spent == 0


@pytest.mark.parametrize(
    ("spent", "still", "expected"),
    [
        (47 * 60.0, 2, 30.0),  # to 80 %, twice as fast
        (59 * 60.0, 3, 20.0),  # to the limit
        (60 * 60.0, 3, LONGEST_RECHECK),
        (0.0, 1, LONGEST_RECHECK),
        (47 * 60.0, 0, LONGEST_RECHECK),
        (60 * 60.0 - 0.01, 1, SHORTEST_RECHECK),
    ],
)
def test_the_next_check_is_when_the_state_changes_with_this_many_open_sessions(
    spent: float, still: int, expected: float
) -> None:
    reading = read(closed(NOON, spent), still=(0.0,) * still)
    assert reading.next_change_in == pytest.approx(expected)


def test_the_next_check_is_at_midnight_if_that_is_sooner() -> None:
    assert read(closed(NOON, HOUR), now=24 * HOUR - 20).next_change_in == 20


@given(
    spent=st.floats(0, 1e5),
    still=st.lists(st.floats(0, 1e5), max_size=4),
    limit=st.floats(0, 1e4),
    now=st.floats(0, 24 * HOUR),
)
def test_checking_again_at_the_given_time_misses_no_change(
    spent: float, still: list[float], limit: float, now: float
) -> None:
    reading = read(closed(now, spent), still=tuple(still), limit=limit, now=now)
    step = reading.next_change_in
    assert SHORTEST_RECHECK <= step <= 24 * HOUR
    before = now + max(0.0, step - SHORTEST_RECHECK - 0.001)
    if before < 24 * HOUR:
        older = [one + before - now for one in still]
        unchanged = read(closed(now, spent), still=tuple(older), limit=limit, now=before)
        assert unchanged.state is reading.state


def test_orphaned_sessions_still_count_and_are_reported() -> None:
    reading = read_budget([], [OpenTime(HOUR, orphaned=True)], 60, NOON, DAY)
    assert reading.state is BudgetState.SPENT
    assert reading.text.endswith("1 left open still count: relayd sessions close")


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-26", 24)]
)
@pytest.mark.parametrize("time", ["00:00:00", "02:30:00", "12:00:00", "23:59:59"])
def test_a_day_with_a_clock_change_has_its_own_length(day: str, hours: int, time: str) -> None:
    now = datetime.fromisoformat(f"{day} {time}").replace(tzinfo=BERLIN).timestamp()
    found = local_day(now, BERLIN)
    assert (found.end - found.start) / HOUR == hours
    assert found.start <= now < found.end
    assert datetime.fromtimestamp(found.start, BERLIN).isoformat()[:19] == f"{day}T00:00:00"


def test_a_day_without_a_midnight_begins_when_the_clock_is_changed() -> None:
    cairo = ZoneInfo("Africa/Cairo")  # from 00:00 to 01:00, 24 April 2026
    noon = datetime(2026, 4, 24, 12, tzinfo=cairo).timestamp()
    found = local_day(noon, cairo)
    assert (found.end - found.start) / HOUR == 23
    assert datetime.fromtimestamp(found.start, cairo).hour == 1


def test_the_machines_own_zone_is_used_by_default() -> None:
    now = datetime(2026, 11, 26, 15, 30).astimezone().timestamp()
    assert local_day(now).start == datetime(2026, 11, 26).astimezone().timestamp()


class Clocks:
    """Wall and boot clock of a journal, set by the test."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 11, 26, 12).astimezone().timestamp()
        self.boot = 5000.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def journal_of(tmp_path: Path, clocks: Clocks) -> Callable[[], Journal]:
    def start() -> Journal:
        return Journal(tmp_path, wall=lambda: clocks.wall, boottime=lambda: clocks.boot)

    return start


def live(session_id: str = "abc") -> LiveSession:
    made = LiveSession.read({"_id": session_id, "channel_id": "c"})
    assert made is not None
    return made


def test_the_days_sum_survives_a_restart(journal_of: Callable[[], Journal], clocks: Clocks) -> None:
    first = journal_of()
    entry = first.record(live(), base_url="u", relay="r")
    clocks.passes(40 * 60)
    entry.remove()
    left = first.record(live("left"), base_url="u", relay="r")
    left.release()  # as if killed
    clocks.passes(10 * 60)
    reading = journal_of().budget(60)
    assert (reading.spent, reading.state) == (50 * 60, BudgetState.NEAR)
    assert "1 left open" in reading.text


def test_a_session_that_is_closed_while_the_day_is_read_counts_once(
    journal_of: Callable[[], Journal], clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_of()
    entry = journal.record(live(), base_url="u", relay="r")
    clocks.passes(60 * 60)
    entries, sessions = journal.entries, journal.history.sessions

    def then_closed(read: Callable[[], Any]) -> Callable[[], Any]:
        def read_then_close() -> Any:
            found = read()
            entry.remove()
            return found

        return read_then_close

    monkeypatch.setattr(journal.history, "sessions", then_closed(sessions))
    assert journal.budget(60).state is BudgetState.SPENT
    monkeypatch.undo()
    entry = journal.record(live("next"), base_url="u", relay="r")
    clocks.passes(60)
    monkeypatch.setattr(journal, "entries", then_closed(entries))
    assert journal.budget(60).spent == 61 * 60


def test_a_session_whose_closing_was_noted_before_a_kill_counts_once(
    journal_of: Callable[[], Journal], clocks: Clocks
) -> None:
    journal = journal_of()
    entry = journal.record(live(), base_url="u", relay="r")
    clocks.passes(60)
    journal.note_closed(entry.record)
    entry.release()  # as if killed before the file is removed
    clocks.passes(600)
    assert journal.budget(60).spent == 60
    (orphan,) = journal.orphans()
    orphan.remove()
    assert journal.budget(60).spent == 60


@pytest.mark.parametrize("step", [6 * HOUR, -3 * HOUR])
def test_changing_the_clock_during_a_session_does_not_change_its_cost(
    journal_of: Callable[[], Journal], clocks: Clocks, step: float
) -> None:
    journal = journal_of()
    entry = journal.record(live(), base_url="u", relay="r")
    clocks.passes(10)
    clocks.wall += step
    clocks.passes(7)
    assert journal.budget(60).spent == pytest.approx(17)
    entry.remove()
    (session,) = journal.history.sessions()
    assert session.seconds == pytest.approx(17)
    assert journal.budget(60).spent == pytest.approx(17)


def test_a_session_that_outlived_its_boot_is_counted_by_the_wall_clock_and_never_negative(
    journal_of: Callable[[], Journal], clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_of().record(live(), base_url="u", relay="r").release()
    clocks.passes(100)
    clocks.boot = 30.0
    monkeypatch.setattr("relayd.akool.boottime.BOOT_ID", Path(os.devnull))
    assert journal_of().budget(60).spent == pytest.approx(100)
    clocks.wall -= HOUR
    assert journal_of().budget(60).spent == 0


def test_the_limit_is_reset_at_midnight(journal_of: Callable[[], Journal], clocks: Clocks) -> None:
    journal = journal_of()
    entry = journal.record(live(), base_url="u", relay="r")
    clocks.passes(2 * HOUR)
    assert journal.budget(60).state is BudgetState.SPENT
    entry.remove()
    clocks.passes(11 * HOUR)
    reading = journal.budget(60)
    assert (reading.state, reading.spent) == (BudgetState.OK, 0)


def test_a_history_that_cannot_be_read_is_unavailable(
    journal_of: Callable[[], Journal], tmp_path: Path
) -> None:

    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(Unavailable):
        journal_of().budget(60)
