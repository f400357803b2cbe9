"""An old session that dies while its successor is being opened: the successor goes on."""

import pytest

from relayd.errors import RelaydError
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.holdoff import OPEN_BACKOFF
from relayd.relay.sessions import CLOSE_TIMEOUT, REJOIN_TIMEOUT, Stage
from relayd.relay.status import RelayState
from tests.relay.playbook import (
    ENDED,
    LOST,
    NO_CREDIT,
    NOT_JOINED,
    ROTATING,
    UNANSWERED,
    Play,
)

UNDERWAY = list(Stage)[:5]


def only_two(play: Play) -> bool:
    """Whether no third session was started."""
    begun = {each.number for _, each in play.history if isinstance(each, do.StartLink)}
    return begun == {1, 2}


@pytest.mark.parametrize("stage", UNDERWAY)
def test_the_successor_is_shown_at_once_though_the_old_link_is_being_replaced(stage: Stage) -> None:
    play = Play(ROTATING).with_successor(stage)
    assert play.feed(on.LinkLost(1, LOST)) == [do.StartLink(1)]
    assert (play.state, play.reason) == (RelayState.DEGRADED, str(LOST))
    play.reach(Stage.WAITING, 2)
    assert play.feed(on.PicturesFlow(2)) == [do.CloseSession(1), do.Show(2)]
    assert play.state is RelayState.LIVE
    play.feed(on.SessionClosed(1))
    assert play.advance(60.0) == []
    assert only_two(play)


@pytest.mark.parametrize("stage", UNDERWAY)
def test_the_successor_is_shown_with_its_first_picture_though_both_rejoins_failed(
    stage: Stage,
) -> None:
    play = Play(ROTATING).with_successor(stage)
    play.feed(on.LinkLost(1, LOST), on.LinkLost(1, NOT_JOINED))
    assert play.feed(on.LinkLost(1, NOT_JOINED)) == [do.CloseSession(1), do.Show(None)]
    play.feed(on.SessionClosed(1))
    play.reach(Stage.WAITING, 2)
    assert play.feed(on.PicturesFlow(2)) == [do.Show(2)]
    assert play.state is RelayState.LIVE
    assert play.advance(60.0) == []
    assert only_two(play)


@pytest.mark.parametrize("stage", UNDERWAY)
@pytest.mark.parametrize("error", [ENDED, NO_CREDIT])
def test_the_successor_goes_on_though_the_service_ended_the_old_session(
    stage: Stage, error: RelaydError
) -> None:
    play = Play(ROTATING).with_successor(stage)
    assert play.feed(on.SessionEnded(1, error)) == [do.CloseSession(1), do.Show(None)]
    assert play.state is not RelayState.BACKOFF
    play.go_live(2)
    assert play.machine.sessions.shown == 2
    assert play.advance(CLOSE_TIMEOUT - 1.0) == []
    play.feed(on.SessionClosed(1))
    assert only_two(play)


def test_the_successor_for_a_final_token_takes_over_when_the_old_link_dies() -> None:
    """The gap is as long as the successor takes, not as two rejoins and a third session."""
    play = Play().live()
    play.advance(2700.0)
    assert play.feed(on.TokenFinal(1)) == [do.StartLink(2)]
    play.feed(on.LinkReady(2), on.SessionOpened(2))
    play.advance(1.0)
    play.feed(on.LinkLost(1, LOST))
    play.advance(7.0)
    play.go_live(2)
    assert play.state is RelayState.LIVE
    assert play.times(do.Show)[-1] == 2708.0
    assert len(play.times(do.OpenSession)) == 2


def test_the_old_link_that_is_back_first_is_shown_until_the_successor_has_pictures() -> None:
    play = Play(ROTATING).with_successor(Stage.JOINING)
    play.feed(on.LinkLost(1, LOST))
    play.go_live(1)
    assert play.state is RelayState.ROTATING
    assert play.machine.sessions.shown == 1
    play.go_live(2)
    assert play.machine.sessions.shown == 2


def test_pictures_of_both_at_the_same_moment_show_the_newer_one() -> None:
    play = Play(ROTATING).with_successor(Stage.WAITING)
    play.feed(on.LinkLost(1, LOST))
    play.reach(Stage.WAITING, 1)
    play.feed(on.PicturesFlow(1))
    assert play.feed(on.PicturesFlow(2)) == [do.CloseSession(1), do.Show(2)]


def test_a_rejoin_that_is_late_at_the_moment_of_the_successors_first_picture_is_not_repeated() -> (
    None
):
    play = Play(ROTATING).with_successor(Stage.WAITING)
    play.feed(on.LinkLost(1, LOST))
    play.now += REJOIN_TIMEOUT
    ordered = play.feed(on.PicturesFlow(2))
    assert do.CloseSession(1) in ordered
    assert ordered[-1] == do.Show(2)
    assert play.numbers == [1, 2]


@pytest.mark.parametrize("stage", UNDERWAY)
def test_a_successor_that_fails_after_the_old_one_is_a_failure_of_the_relay(stage: Stage) -> None:
    play = Play(ROTATING).with_successor(stage)
    play.feed(on.SessionEnded(1, ENDED))
    play.feed(on.SessionEnded(2, ENDED))
    assert (play.state, play.reason) == (RelayState.BACKOFF, str(ENDED))
    assert play.feed(on.SessionClosed(1), on.SessionClosed(2)) == []
    assert play.advance(OPEN_BACKOFF[0]) == [do.StartLink(3)]
    assert play.machine.sessions.changes == 2


@pytest.mark.parametrize("stage", UNDERWAY)
def test_a_successor_that_fails_before_the_old_one_leaves_it_its_tries(stage: Stage) -> None:
    play = Play(ROTATING).with_successor(stage)
    play.feed(on.LinkLost(1, LOST))
    play.feed(on.SessionEnded(2, ENDED), on.SessionClosed(2))
    assert play.numbers == [1]
    assert play.feed(on.LinkLost(1, NOT_JOINED)) == [do.StartLink(1)]
    play.go_live()
    assert play.state is RelayState.LIVE


def test_a_new_session_waits_for_both_closes() -> None:
    play = Play(ROTATING).with_successor(Stage.CREATING)
    play.feed(on.SessionEnded(1, ENDED), on.SessionRefused(2, ENDED))
    play.feed(on.SessionClosed(2))
    assert play.advance(10.0) == []
    assert play.feed(on.SessionClosed(1)) == [do.StartLink(3)]


def test_a_successor_whose_answer_is_lost_after_the_old_one_died_makes_the_relay_wait() -> None:
    play = Play(ROTATING).with_successor(Stage.CREATING)
    play.feed(on.SessionEnded(1, ENDED), on.SessionClosed(1))
    play.feed(on.SessionDoubtful(2, UNANSWERED), on.SessionClosed(2))
    assert play.state is RelayState.BACKOFF
    assert play.advance(299.0) == []
    assert play.advance(1.0) == [do.StartLink(3)]
