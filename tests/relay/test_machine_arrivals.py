"""Readers that come, come back, or come and go: how soon and how often a session is tried."""

import pytest

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.holdoff import BLOCKED_RETRY, OPEN_BACKOFF
from relayd.relay.policy import Policy
from relayd.relay.status import RelayState
from relayd.relay.view import SOON
from tests.relay.playbook import CAMERA, NO_CREDIT, ON_DEMAND, Play

GRACE = ON_DEMAND.grace
COMES, LEAVES = on.ReadersChanged(CAMERA, 1), on.ReadersChanged(CAMERA, 0)


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


def refused() -> Play:
    """Return a relay on demand with a reader, just after a refusal."""
    play = idle()
    play.feed(COMES, on.SourceUp())
    play.fail(NO_CREDIT)
    return play


def test_a_refused_relay_does_not_retry_without_readers_and_reports_the_refusal() -> None:
    play = refused()
    play.feed(LEAVES)
    assert do.StartLink(2) not in play.advance(5 * 3600.0)
    assert (play.state, play.reason) == (RelayState.BLOCKED, str(NO_CREDIT))


@pytest.mark.parametrize("away", [5.0, 2 * GRACE])
def test_a_new_reader_ends_the_wait_after_a_refusal(away: float) -> None:
    play = refused()
    play.feed(LEAVES)
    play.advance(away)
    assert do.StartLink(2) in play.feed(COMES)


def test_a_second_refusal_after_a_new_reader_waits_as_long_as_before() -> None:
    play = refused()
    play.feed(LEAVES)
    play.advance(5.0)
    play.feed(COMES)
    play.fail(NO_CREDIT)
    assert play.advance(BLOCKED_RETRY - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(3)]


def test_a_reader_who_stays_gets_another_try_after_the_long_wait() -> None:
    play = refused()
    assert play.advance(BLOCKED_RETRY - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(2)]


def test_readers_that_come_and_go_all_day_do_not_flood_a_service_that_refuses() -> None:
    play = refused()
    for _ in range(1800):
        play.feed(LEAVES)
        play.advance(1.0)
        play.feed(COMES, on.SourceUp())
        if play.numbers:
            play.fail(NO_CREDIT)
        play.advance(1.0)
    assert len(play.times(do.OpenSession)) <= 3600.0 / OPEN_BACKOFF[1] + 8


def test_a_program_that_reopens_the_camera_does_not_open_short_sessions_in_a_row() -> None:
    play = Play(Policy(on_demand=True, grace=0.0))
    play.feed(on.Started())
    for _ in range(240):
        play.feed(COMES, on.SourceUp())
        if play.numbers:
            play.go_live(max(play.numbers))
        play.advance(12.0)
        play.feed(LEAVES)
        play.feed(*(on.SessionClosed(number) for number in play.numbers))
        play.advance(3.0)
    assert len(play.times(do.OpenSession)) <= 3600.0 / OPEN_BACKOFF[1] + 8


def test_a_short_wait_for_the_next_try_is_reported() -> None:
    play = Play(Policy(on_demand=True, grace=0.0))
    play.feed(on.Started(), COMES, LEAVES, on.SessionClosed(1), COMES)
    assert (play.state, play.reason) == (RelayState.STANDBY, SOON)
    assert play.advance(OPEN_BACKOFF[0]) == [do.StartLink(2)]


def test_after_a_long_session_the_next_one_is_opened_at_once() -> None:
    play = looked_at()
    play.advance(60.0)
    play.feed(LEAVES)
    play.advance(GRACE)
    play.feed(on.SessionClosed(1))
    assert do.StartLink(2) in play.feed(COMES)
