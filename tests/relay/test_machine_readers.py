"""Sessions on demand: open only while a program reads a camera."""

import pytest

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.conditions import NO_READERS, STILL_CLOSING
from relayd.relay.holdoff import BLOCKED_RETRY
from relayd.relay.policy import Policy
from relayd.relay.sessions import Stage
from relayd.relay.status import DemandState, RelayState
from tests.relay.playbook import CAMERA, LOST, NO_CREDIT, ON_DEMAND, Play

GRACE = ON_DEMAND.grace
SECOND_CAMERA = "/dev/video1"
COMES, LEAVES = on.ReadersChanged(CAMERA, 1), on.ReadersChanged(CAMERA, 0)
UNSEEN = on.ReadersChanged(CAMERA, None)


def idle() -> Play:
    """Return a relay on demand without readers."""
    play = Play(ON_DEMAND)
    play.feed(on.Started())
    return play


def looked_at() -> Play:
    """Return a relay on demand whose session is live."""
    play = Play(ON_DEMAND).live()
    play.feed(on.SourceUp())
    return play


def demand(play: Play) -> DemandState:
    """Return the state of sessions on demand."""
    return play.machine.view(play.now).demand


def test_an_idle_day_opens_no_session_and_no_source() -> None:
    play = Play(ON_DEMAND)
    assert play.feed(on.Started()) == [do.SuspendSource()]
    assert play.advance(86400.0) == []
    assert (play.state, play.reason) == (RelayState.STANDBY, NO_READERS)
    assert demand(play) is DemandState.IDLE


def test_source_and_session_are_opened_side_by_side_with_the_first_reader() -> None:
    assert idle().feed(COMES) == [do.ResumeSource(), do.StartLink(1)]


def test_a_second_reader_changes_nothing() -> None:
    assert looked_at().feed(on.ReadersChanged(CAMERA, 2), COMES) == []


def test_session_and_source_are_kept_for_the_grace_time_and_then_released() -> None:
    play = looked_at()
    play.feed(LEAVES)
    assert demand(play) is DemandState.GRACE
    assert play.advance(GRACE - 0.1) == []
    assert play.advance(0.1) == [do.CloseSession(1), do.SuspendSource(), do.Show(None)]
    assert demand(play) is DemandState.CLOSING
    play.feed(on.SessionClosed(1))
    assert demand(play) is DemandState.IDLE


def test_a_reader_who_comes_back_within_the_grace_time_gets_the_same_session() -> None:
    play = looked_at()
    play.feed(LEAVES)
    play.advance(GRACE - 0.1)
    assert play.feed(COMES) == []
    assert play.advance(10 * GRACE) == []
    assert demand(play) is DemandState.LIVE


def test_the_grace_time_starts_again_with_each_leaving_reader() -> None:
    play = looked_at()
    play.feed(LEAVES)
    play.advance(GRACE - 1.0)
    play.feed(COMES, LEAVES)
    assert play.advance(GRACE - 0.1) == []
    assert do.CloseSession(1) in play.advance(0.1)


@pytest.mark.parametrize(("passed", "grace"), [(10.0, 5.0), (10.0, 10.0), (10.0, 0.0)])
def test_a_shorter_grace_time_closes_the_session_of_a_reader_who_left_that_long_ago(
    passed: float, grace: float
) -> None:
    play = looked_at()
    play.feed(LEAVES)
    play.advance(passed)
    policy = Policy(on_demand=True, grace=grace)
    assert do.CloseSession(1) in play.feed(on.PolicyChanged(policy))


@pytest.mark.parametrize("grace", [10.1, 2 * GRACE])
def test_another_grace_time_counts_from_when_the_last_reader_left(grace: float) -> None:
    play = looked_at()
    play.feed(LEAVES)
    play.advance(10.0)
    assert play.feed(on.PolicyChanged(Policy(on_demand=True, grace=grace))) == []
    assert play.advance(grace - 10.0 - 0.05) == []
    assert do.CloseSession(1) in play.advance(0.1)


def test_a_longer_grace_time_brings_back_no_released_session() -> None:
    play = looked_at()
    play.feed(LEAVES)
    play.advance(GRACE)
    play.feed(on.SessionClosed(1))
    play.feed(on.PolicyChanged(Policy(on_demand=True, grace=10 * GRACE)))
    assert play.numbers == []


def test_a_reader_who_comes_while_a_session_is_closed_resumes_the_source_and_gets_the_next() -> (
    None
):
    play = looked_at()
    play.advance(60.0)
    play.feed(LEAVES)
    play.advance(GRACE)
    assert play.feed(COMES) == [do.ResumeSource()]
    assert (play.state, play.reason) == (RelayState.STANDBY, STILL_CLOSING)
    assert demand(play) is DemandState.CLOSING
    assert play.feed(on.SessionClosed(1)) == [do.StartLink(2)]
    assert demand(play) is DemandState.OPENING


@pytest.mark.parametrize("stage", [Stage.LOADING, Stage.CREATING])
def test_nothing_is_kept_for_a_reader_who_left_before_there_was_a_session(stage: Stage) -> None:
    play = idle()
    play.feed(COMES, on.SourceUp())
    play.reach(stage)
    assert play.feed(LEAVES) == [do.CloseSession(1)]


@pytest.mark.parametrize("stage", [Stage.QUEUED, Stage.JOINING, Stage.WAITING])
def test_a_reader_who_leaves_during_the_opening_costs_no_more_than_the_grace_time(
    stage: Stage,
) -> None:
    policy = Policy(on_demand=True, grace=10.0)
    play = Play(policy)
    play.feed(on.Started(), COMES, on.SourceUp())
    play.reach(stage)
    assert play.feed(LEAVES) == []
    assert do.CloseSession(1) in play.advance(10.0)


def test_one_of_two_cameras_being_read_is_enough_and_the_last_reader_counts() -> None:
    play = looked_at()
    play.feed(on.ReadersChanged(SECOND_CAMERA, 2), LEAVES)
    assert play.advance(2 * GRACE) == []
    assert demand(play) is DemandState.LIVE
    play.feed(on.ReadersChanged(SECOND_CAMERA, 0))
    assert do.CloseSession(1) in play.advance(GRACE)


def test_readers_that_cannot_be_seen_make_a_session_stay_open() -> None:
    play = idle()
    play.feed(UNSEEN)
    play.feed(on.SourceUp())
    play.go_live()
    assert demand(play) is DemandState.OFF
    assert play.advance(86400.0) == []
    assert play.state is RelayState.LIVE


def test_readers_that_can_be_counted_again_and_are_gone_get_the_grace_time() -> None:
    play = looked_at()
    play.feed(UNSEEN)
    play.advance(3600.0)
    play.feed(LEAVES)
    assert demand(play) is DemandState.GRACE
    assert play.advance(GRACE - 0.1) == []
    assert do.CloseSession(1) in play.advance(0.1)


def test_a_reload_that_asks_for_sessions_on_demand_gives_the_grace_time_too() -> None:
    play = Play().live()
    play.advance(3600.0)
    assert play.feed(on.PolicyChanged(ON_DEMAND)) == []
    assert play.advance(GRACE - 0.1) == []
    assert do.CloseSession(1) in play.advance(0.1)


def test_a_reload_that_asks_for_sessions_always_opens_one() -> None:
    play = idle()
    assert play.feed(on.PolicyChanged(Policy())) == [do.ResumeSource(), do.StartLink(1)]
    assert demand(play) is DemandState.OFF


def test_without_sessions_on_demand_readers_decide_nothing() -> None:
    play = Play().live()
    assert play.feed(COMES, LEAVES) == []
    assert play.advance(86400.0) == []
    assert demand(play) is DemandState.OFF


def test_without_sessions_on_demand_a_reader_ends_no_wait_after_a_refusal() -> None:
    play = Play()
    play.start()
    play.fail(NO_CREDIT)
    play.advance(60.0)
    assert play.feed(COMES, LEAVES, COMES) == []
    assert play.advance(BLOCKED_RETRY - 60.0) == [do.StartLink(2)]


def test_each_state_of_the_demand_is_reported_in_order() -> None:
    play = Play(Policy(on_demand=True, grace=5.0))
    play.feed(on.Started(), COMES, on.SourceUp())
    play.go_live()
    play.feed(LEAVES)
    play.advance(5.0)
    play.feed(on.SessionClosed(1))
    demands = [report.demand for report in play.reports()]
    assert list(dict.fromkeys(demands)) == [
        DemandState.IDLE, DemandState.OPENING, DemandState.LIVE, DemandState.GRACE,
        DemandState.CLOSING,
    ]  # fmt: skip
    assert demands[-1] is DemandState.IDLE


def test_a_failed_session_leaves_the_demand_open_until_the_next_try() -> None:
    play = looked_at()
    play.advance(60.0)
    play.feed(on.SessionEnded(1, LOST))
    assert demand(play) is DemandState.CLOSING
    play.feed(on.SessionClosed(1))
    assert demand(play) is DemandState.OPENING
