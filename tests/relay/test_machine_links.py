"""A link that breaks: it repairs itself, or another worker rejoins, or its session is given up."""

import pytest

from relayd.errors import LinkForbidden, RelaydError
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.holdoff import OPEN_BACKOFF
from relayd.relay.policy import Policy
from relayd.relay.sessions import (
    MAX_SHORT_LINKS,
    RECOVERY_TIMEOUT,
    REJOIN_TIMEOUT,
    STABLE_AFTER,
    Stage,
)
from relayd.relay.status import RelayState
from tests.relay.playbook import ENDED, LOST, NOT_JOINED, STALLED, TOKEN_REFUSED, Play

STALL = Policy().stall_timeout
REPAIRING = on.LinkDegraded(1, "interrupted")


def stopped(play: Play, ago: float = STALL) -> on.PicturesStopped:
    """Return the event that pictures stopped some seconds ago."""
    return on.PicturesStopped(1, STALLED, play.now - ago)


def rejoined(play: Play) -> None:
    """Bring the new worker of session 1 to its first picture."""
    play.go_live()
    assert play.state is RelayState.LIVE


def test_a_lost_link_gets_another_worker_within_the_session() -> None:
    play = Play().live()
    assert play.feed(on.LinkLost(1, LOST)) == [do.StartLink(1)]
    assert (play.state, play.reason) == (RelayState.DEGRADED, str(LOST))
    assert play.feed(on.LinkReady(1)) == [do.JoinLink(1)]
    assert play.feed(on.LinkJoined(1)) == []
    assert play.state is RelayState.DEGRADED
    assert play.feed(on.PicturesFlow(1)) == []
    assert (play.state, play.reason) == (RelayState.LIVE, "")
    assert play.machine.sessions.link_restarts == 1
    assert play.machine.sessions.changes == 0


def test_pictures_that_stop_count_as_a_lost_link() -> None:
    play = Play().live()
    play.advance(60.0)
    assert play.feed(stopped(play)) == [do.StartLink(1)]
    assert (play.state, play.reason) == (RelayState.DEGRADED, str(STALLED))


def test_the_shown_session_stays_shown_while_its_link_is_replaced() -> None:
    play = Play().live()
    play.feed(on.LinkLost(1, LOST))
    assert play.machine.sessions.shown == 1
    assert do.Show(None) not in [each for _, each in play.history]


def test_two_tries_to_rejoin_then_another_session() -> None:
    play = Play().live()
    play.advance(60.0)
    play.feed(on.LinkLost(1, LOST))
    assert play.feed(on.LinkLost(1, NOT_JOINED)) == [do.StartLink(1)]
    assert play.feed(on.LinkLost(1, NOT_JOINED)) == [do.CloseSession(1), do.Show(None)]
    assert (play.state, play.reason) == (RelayState.BACKOFF, str(NOT_JOINED))
    assert play.feed(on.SessionClosed(1)) == []
    assert play.advance(OPEN_BACKOFF[0]) == [do.StartLink(2)]
    assert play.machine.sessions.changes == 1


def test_the_tries_are_counted_again_after_each_picture() -> None:
    play = Play().live()
    for _ in range(10):
        play.advance(60.0)
        play.feed(on.LinkLost(1, LOST))
        assert play.feed(on.LinkLost(1, NOT_JOINED)) == [do.StartLink(1)]
        rejoined(play)


def test_a_rejoin_that_takes_too_long_is_tried_once_more_and_then_given_up() -> None:
    play = Play().live()
    play.advance(60.0)
    play.feed(on.LinkLost(1, LOST))
    assert play.advance(REJOIN_TIMEOUT - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(1)]
    play.feed(on.LinkReady(1))
    assert play.advance(REJOIN_TIMEOUT - 0.1) == []
    assert play.advance(0.1)[0] == do.CloseSession(1)


def test_a_rejoin_that_shows_no_picture_in_time_has_failed() -> None:
    play = Play().live()
    play.feed(on.LinkLost(1, LOST))
    play.reach(Stage.WAITING)
    assert play.advance(Policy().first_frame_timeout - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(1)]


@pytest.mark.parametrize("error", [LinkForbidden("wrong app id"), TOKEN_REFUSED])
def test_a_link_that_is_refused_is_not_rejoined(error: RelaydError) -> None:
    play = Play().live()
    assert play.feed(on.LinkLost(1, error))[0] == do.CloseSession(1)


@pytest.mark.parametrize("stage", list(Stage)[:5])
@pytest.mark.parametrize("lost", [on.LinkLost(1, LOST), on.SessionEnded(1, ENDED)])
def test_a_session_that_fails_before_its_first_picture_is_not_rejoined(
    stage: Stage, lost: Event
) -> None:
    play = Play()
    play.start()
    play.reach(stage)
    assert play.feed(lost) == [do.CloseSession(1)]
    assert play.state is RelayState.BACKOFF


def break_early(play: Play, cause: str) -> list[do.Command]:
    """Let a link break 1 s after it came up, by a cause that is detected at once or much later."""
    play.advance(1.0)
    match cause:
        case "lost":
            return play.feed(on.LinkLost(1, LOST))
        case "stalled":
            play.advance(15.0)
            return play.feed(stopped(play, 15.0))
        case "lost while it was repaired":
            play.feed(REPAIRING)
            play.advance(STALL)
            play.feed(stopped(play))
            play.advance(RECOVERY_TIMEOUT - 1.0)
            return play.feed(on.LinkLost(1, LOST))
        case "not repaired in time":
            play.feed(REPAIRING)
            play.advance(STALL)
            play.feed(stopped(play))
            return play.advance(RECOVERY_TIMEOUT)
        case _:
            play.feed(REPAIRING)
            play.advance(STALL)
            play.feed(stopped(play))
            play.advance(12.0)
            play.feed(on.LinkRecovered(1))
            return play.advance(STALL)


@pytest.mark.parametrize(
    "cause",
    ["lost", "stalled", "lost while it was repaired", "not repaired in time", "repaired in vain"],
)
def test_a_session_whose_links_keep_breaking_soon_is_given_up(cause: str) -> None:
    play = Play().live()
    for _ in range(MAX_SHORT_LINKS):
        assert break_early(play, cause) == [do.StartLink(1)]
        rejoined(play)
    assert break_early(play, cause)[0] == do.CloseSession(1)


def test_a_link_that_stays_up_makes_the_next_short_one_the_first_again() -> None:
    play = Play().live()
    for _ in range(2 * MAX_SHORT_LINKS):
        break_early(play, "lost")
        rejoined(play)
        play.advance(STABLE_AFTER)
        play.feed(on.LinkLost(1, LOST))
        rejoined(play)


def test_a_link_that_repairs_itself_is_left_alone_while_pictures_come() -> None:
    play = Play().live()
    play.feed(REPAIRING)
    assert (play.state, play.reason) == (RelayState.DEGRADED, "interrupted")
    assert play.advance(10 * RECOVERY_TIMEOUT) == []
    play.feed(on.LinkRecovered(1))
    assert play.state is RelayState.LIVE
    assert play.advance(10 * RECOVERY_TIMEOUT) == []


def test_a_link_that_repairs_itself_without_pictures_gets_its_time_and_no_more() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    assert play.advance(RECOVERY_TIMEOUT - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(1)]
    assert "interrupted" in play.reason


def test_a_link_whose_pictures_come_again_is_not_replaced_though_no_repair_was_reported() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    play.advance(5.0)
    play.feed(on.PicturesFlow(1))
    assert play.advance(10 * RECOVERY_TIMEOUT) == []
    assert play.state is RelayState.DEGRADED


def test_a_link_whose_repair_is_reported_repeatedly_gets_no_more_time() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    ordered = []
    for _ in range(4):
        ordered += play.advance(5.0)
        ordered += play.feed(REPAIRING)
    assert ordered == [do.StartLink(1)]


def test_a_link_that_breaks_again_before_it_showed_a_picture_has_what_is_left_of_its_time() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    play.advance(1.0)
    play.feed(on.LinkRecovered(1), REPAIRING)
    assert play.advance(RECOVERY_TIMEOUT - 1.1) == []
    assert play.advance(0.1) == [do.StartLink(1)]


def test_a_link_that_alternates_without_a_picture_gets_no_endless_time() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    ordered = []
    for _ in range(20):
        ordered += play.advance(STALL / 2)
        ordered += play.feed(on.LinkRecovered(1), REPAIRING)
        if ordered:
            break
    assert ordered == [do.StartLink(1)]
    assert play.times(do.StartLink)[-1] <= RECOVERY_TIMEOUT + STALL


def test_a_repaired_link_gets_time_to_show_a_picture() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    play.advance(RECOVERY_TIMEOUT - 0.1)
    assert play.feed(on.LinkRecovered(1)) == []
    assert (play.state, play.reason) == (RelayState.DEGRADED, "no swapped picture arrives")
    assert play.advance(STALL - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(1)]


def test_a_repaired_link_that_shows_a_picture_in_time_is_live() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    play.advance(RECOVERY_TIMEOUT - 0.1)
    play.feed(on.LinkRecovered(1), on.PicturesFlow(1))
    assert play.advance(10 * RECOVERY_TIMEOUT) == []
    assert play.state is RelayState.LIVE


def test_another_stall_ends_no_repair_but_a_repaired_link() -> None:
    play = Play().live()
    play.feed(REPAIRING, stopped(play))
    assert play.feed(stopped(play)) == []
    play.feed(on.LinkRecovered(1))
    assert play.feed(stopped(play)) == [do.StartLink(1)]


def test_late_events_of_the_old_worker_do_not_count_for_the_new_one() -> None:
    play = Play().live()
    play.feed(on.LinkLost(1, LOST))
    events = on.PicturesFlow(1), on.LinkJoined(1), stopped(play), REPAIRING, on.LinkRecovered(1)
    assert play.feed(*events) == []
    assert play.state is RelayState.DEGRADED
    assert play.session(1).stage is Stage.LOADING


def test_a_token_that_runs_out_is_renewed() -> None:
    play = Play().live()
    assert play.feed(on.TokenExpiring(1)) == [do.RenewToken(1)]


def test_a_token_that_runs_out_while_its_session_is_closed_is_not() -> None:
    play = Play().live()
    play.feed(on.Paused())
    assert play.feed(on.TokenExpiring(1), on.TokenFinal(1)) == []
