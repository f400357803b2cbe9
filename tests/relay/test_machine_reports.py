"""Reports: each state with its reason, in order; and what the outputs show."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.conditions import (
    ASLEEP,
    NO_READERS,
    PAUSED,
    STILL_CLOSING,
    WAITING_FOR_SOURCE,
)
from relayd.relay.events import Event
from relayd.relay.sessions import Stage
from relayd.relay.status import DemandState, RelayState
from tests.relay.playbook import CAMERA, ENDED, LOST, NO_CREDIT, ON_DEMAND, ROTATING, Play

SPENT = on.BudgetChanged(spent=True, reason="60 of 60 minutes are used up")
GONE = on.SourceDown("no such camera")
UNPLUGGED = on.OutputsChanged(working=False, reason="the camera was unplugged")


def started() -> Play:
    play = Play()
    play.feed(on.Started())
    return play


def with_source() -> Play:
    play = Play()
    play.start()
    return play


def live() -> Play:
    return Play().live()


def after_long_session() -> Play:
    play = live()
    play.advance(60.0)
    return play


def on_demand() -> Play:
    play = Play(ON_DEMAND)
    play.feed(on.Started())
    return play


def failed() -> Play:
    play = with_source()
    play.fail(ENDED)
    return play


def blocked() -> Play:
    play = with_source()
    play.fail(NO_CREDIT)
    return play


STANDBY, BACKOFF, BLOCKED = RelayState.STANDBY, RelayState.BACKOFF, RelayState.BLOCKED
LIVE, DEGRADED, CLOSING = RelayState.LIVE, RelayState.DEGRADED, RelayState.CLOSING
CLOSED = on.SessionClosed(1)


@pytest.mark.parametrize(
    ("begin", "events", "state", "reason"),
    [
        (started, [], STANDBY, WAITING_FOR_SOURCE),
        (started, [GONE], STANDBY, "no such camera"),
        (started, [GONE, on.SourceDown("busy")], STANDBY, "busy"),
        (started, [on.SourceEnded()], STANDBY, "the source has ended"),
        (started, [UNPLUGGED], STANDBY, "the camera was unplugged"),
        (started, [UNPLUGGED, on.OutputsChanged(working=True)], STANDBY, WAITING_FOR_SOURCE),
        (started, [on.Paused()], STANDBY, PAUSED),
        (started, [on.Paused(), SPENT, GONE], STANDBY, PAUSED),
        (started, [on.SleepComing()], STANDBY, ASLEEP),
        (started, [on.SleepComing(), on.Paused()], STANDBY, PAUSED),
        (started, [SPENT], BLOCKED, "60 of 60 minutes are used up"),
        (started, [SPENT, GONE], BLOCKED, "60 of 60 minutes are used up"),
        (started, [on.Stop()], CLOSING, ""),
        (on_demand, [], STANDBY, NO_READERS),
        (on_demand, [UNPLUGGED], STANDBY, NO_READERS),
        (with_source, [], RelayState.OPENING, ""),
        (live, [], LIVE, ""),
        (live, [GONE], DEGRADED, "no such camera"),
        (live, [GONE, on.LinkDegraded(1, "interrupted")], DEGRADED, "no such camera"),
        (live, [GONE, on.SourceUp()], LIVE, ""),
        (live, [UNPLUGGED], LIVE, ""),
        (live, [on.LinkDegraded(1, "interrupted")], DEGRADED, "interrupted"),
        (live, [on.LinkDegraded(1, "")], DEGRADED, "the link is being repaired"),
        (live, [on.LinkDegraded(1, "x"), on.LinkRecovered(1)], LIVE, ""),
        (live, [on.LinkLost(1, LOST)], DEGRADED, str(LOST)),
        (live, [on.Paused()], STANDBY, PAUSED),
        (live, [on.Paused(), CLOSED], STANDBY, PAUSED),
        (live, [on.SessionEnded(1, ENDED)], BACKOFF, str(ENDED)),
        (live, [on.SessionEnded(1, ENDED), on.Paused()], STANDBY, PAUSED),
        (live, [on.SessionEnded(1, ENDED), SPENT], BLOCKED, "60 of 60 minutes are used up"),
        (live, [on.SessionEnded(1, ENDED), GONE], BACKOFF, str(ENDED)),
        (live, [on.Stop()], CLOSING, ""),
        (live, [on.Stop(), CLOSED], CLOSING, ""),
        (after_long_session, [on.SourceEnded()], STANDBY, "the source has ended"),
        (after_long_session, [on.Paused(), on.Resumed()], STANDBY, STILL_CLOSING),
        (failed, [], BACKOFF, str(ENDED)),
        (failed, [on.Paused()], STANDBY, PAUSED),
        (failed, [on.SleepComing()], STANDBY, ASLEEP),
        (blocked, [], BLOCKED, str(NO_CREDIT)),
        (blocked, [GONE], BLOCKED, str(NO_CREDIT)),
    ],
)
def test_each_situation_has_its_state_and_reason(
    begin: Callable[[], Play], events: list[Event], state: RelayState, reason: str
) -> None:
    play = begin()
    play.feed(*events)
    assert (play.state, play.reason) == (state, reason)
    last = play.reports()[-1]
    assert (last.state, last.reason) == (state, reason)


def test_each_report_differs_from_the_one_before_it() -> None:
    play = live()
    play.feed(on.TimerDue(), on.SourceUp(), GONE, GONE, on.SourceUp(), on.PicturesFlow(1))
    reports = play.reports()
    assert all(one != next_one for one, next_one in pairwise(reports))
    assert [report.state for report in reports] == [
        RelayState.OPENING, RelayState.QUEUED, RelayState.JOINING, RelayState.WAITING, LIVE,
        DEGRADED, LIVE,
    ]  # fmt: skip


def test_the_end_of_a_wait_changes_the_report() -> None:
    play = failed()
    play.feed(GONE)
    assert play.reports()[-1].state is BACKOFF
    play.advance(0.5)
    assert play.reports()[-1] == do.Report(STANDBY, "no such camera", DemandState.OFF)


def test_the_end_of_the_grace_time_is_reported() -> None:
    play = on_demand()
    play.feed(on.Paused(), on.ReadersChanged(CAMERA, 1), on.ReadersChanged(CAMERA, 0))
    assert play.reports()[-1].demand is DemandState.GRACE
    play.advance(30.0)
    assert play.reports()[-1].demand is DemandState.IDLE


def test_pictures_are_held_back_from_the_start_until_the_sources_first_one() -> None:
    play = Play(ON_DEMAND)
    assert do.Freeze() in play.machine.handle(on.Started(), play.now)
    play.feed(on.ReadersChanged(CAMERA, 1))
    play.go_live()
    assert play.times(do.Thaw) == []
    assert do.Thaw() in play.machine.handle(on.SourceUp(), play.now)


def test_pictures_of_a_source_that_is_away_are_held_back_until_it_is_back() -> None:
    play = started()
    assert do.Thaw() in play.machine.handle(on.SourceUp(), play.now)
    assert do.Freeze() in play.machine.handle(GONE, play.now)
    assert do.Freeze() not in play.machine.handle(GONE, play.now)
    assert do.Thaw() in play.machine.handle(on.SourceUp(), play.now)


def test_pictures_of_a_released_source_are_held_back() -> None:
    play = Play(ON_DEMAND).live()
    play.feed(on.SourceUp(), on.ReadersChanged(CAMERA, 0))
    assert play.times(do.Freeze) == [0.0]
    play.advance(30.0)
    kinds = [type(each) for _, each in play.history][-7:]
    assert do.Freeze in kinds
    assert kinds.index(do.CloseSession) < kinds.index(do.Freeze)
    play.feed(on.SourceUp())  # of the past
    assert len(play.times(do.Thaw)) == 1


@pytest.mark.parametrize(
    "events", [[on.Paused()], [on.Stop()], [SPENT], [on.SessionEnded(1, ENDED)]]
)
def test_no_picture_of_a_session_that_is_being_closed_is_shown(events: list[Event]) -> None:
    play = live()
    assert play.feed(*events)[-1] == do.Show(None)


def test_the_state_is_rotating_while_both_are_open_and_live_afterwards() -> None:
    play = Play(ROTATING).with_successor(Stage.WAITING)
    assert play.reports()[-1].state is RelayState.ROTATING
    play.feed(on.PicturesFlow(2))
    assert play.reports()[-1].state is LIVE
