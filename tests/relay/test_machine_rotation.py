"""A session that grows old or loses its token is replaced by one that is live before it ends."""

import pytest

from relayd.errors import RelaydError, Throttled
from relayd.logs import LogEvent
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.holdoff import OPEN_BACKOFF, SUCCESSOR_BACKOFF
from relayd.relay.policy import Policy
from relayd.relay.sessions import MIN_LIFETIME, READY_TIMEOUT, Stage
from relayd.relay.status import DemandState, RelayState
from tests.relay.playbook import (
    BAD_FACE,
    CAMERA,
    ENDED,
    LOST,
    NO_CREDIT,
    NOT_JOINED,
    OTHER_FACE,
    ROTATING,
    TOKEN_REFUSED,
    Play,
    state_of,
)

LIFE = ROTATING.session_max
RETRY = SUCCESSOR_BACKOFF[0]


def test_a_successor_is_begun_when_the_session_is_old_and_not_before() -> None:
    play = Play(ROTATING).live()
    assert play.advance(LIFE - 0.1) == []
    assert state_of(play) is RelayState.LIVE
    assert play.advance(0.1) == [do.StartLink(2)]
    assert state_of(play) is RelayState.ROTATING


def test_the_successor_is_shown_with_its_first_picture_and_the_old_one_closed() -> None:
    play = Play(ROTATING).with_successor(Stage.WAITING)
    assert play.machine.sessions.shown == 1
    assert play.feed(on.PicturesFlow(2)) == [do.CloseSession(1), do.Show(2)]
    assert play.state is RelayState.LIVE
    assert play.machine.sessions.changes == 1


def test_the_successor_has_a_whole_lifetime_of_its_own() -> None:
    play = Play(ROTATING).with_successor(Stage.WAITING)
    play.advance(10.0)
    play.feed(on.PicturesFlow(2), on.SessionClosed(1))
    assert play.advance(LIFE - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(3)]


def test_no_successor_is_begun_before_the_close_of_the_one_before_is_over() -> None:
    play = Play(Policy(session_max=5.0)).live()
    play.advance(5.0)
    play.go_live(2)
    assert play.advance(30.0) == []
    assert play.feed(on.SessionClosed(1)) == [do.StartLink(3)]


def test_no_successor_is_begun_while_a_worker_rejoins_but_as_soon_as_it_has() -> None:
    play = Play(ROTATING).live()
    play.advance(LIFE - 1.0)
    play.feed(on.LinkLost(1, LOST))
    assert play.advance(10.0) == []
    play.reach(Stage.WAITING)
    assert play.feed(on.PicturesFlow(1)) == [do.StartLink(2)]


def test_zero_means_never() -> None:
    assert Play().live().advance(1e7) == []


def test_another_session_max_applies_from_the_next_session_on() -> None:
    play = Play(ROTATING).live()
    play.feed(on.PolicyChanged(Policy(session_max=100.0)))
    assert play.advance(LIFE - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(2)]
    play.go_live(2)
    play.feed(on.SessionClosed(1))
    assert play.advance(100.0) == [do.StartLink(3)]


@pytest.mark.parametrize("life", [0.0, 2700.0])
def test_a_session_whose_token_ends_gets_its_successor_at_once_even_if_it_never_rotates(
    life: float,
) -> None:
    play = Play(Policy(session_max=life)).live()
    play.advance(MIN_LIFETIME)
    assert play.feed(on.TokenFinal(1)) == [do.StartLink(2)]


def test_sessions_whose_tokens_end_at_once_make_no_loop() -> None:
    play = Play().live()
    assert play.feed(on.TokenFinal(1)) == []
    assert play.advance(MIN_LIFETIME - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(2)]


@pytest.mark.parametrize("stage", [Stage.QUEUED, Stage.JOINING, Stage.WAITING])
@pytest.mark.parametrize("life", [0.0, 2700.0])
def test_a_token_that_ends_before_the_first_picture_is_not_forgotten(
    stage: Stage, life: float
) -> None:
    play = Play(Policy(session_max=life))
    play.start()
    play.reach(stage)
    play.feed(on.TokenFinal(1))
    play.advance(5.0)
    play.go_live()
    assert play.advance(MIN_LIFETIME - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(2)]


def test_a_token_that_ends_never_delays_what_is_due_anyway() -> None:
    play = Play(Policy(session_max=5.0)).live()
    play.feed(on.TokenFinal(1))
    assert play.advance(5.0) == [do.StartLink(2)]


def test_a_token_that_is_reported_repeatedly_opens_no_second_successor_before_its_wait() -> None:
    play = Play().live()
    play.advance(MIN_LIFETIME)
    play.feed(on.TokenFinal(1))
    play.fail(NOT_JOINED)
    for _ in range(5):
        assert play.feed(on.TokenFinal(1)) == []
    assert play.advance(RETRY - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(3)]


@pytest.mark.parametrize("stage", list(Stage)[1:5])
@pytest.mark.parametrize("error", [NOT_JOINED, LOST, NO_CREDIT, TOKEN_REFUSED, BAD_FACE])
def test_a_successor_that_fails_is_tried_again_later_while_the_old_one_goes_on(
    stage: Stage, error: RelaydError
) -> None:
    play = Play(ROTATING).with_successor(stage)
    ordered = play.feed(on.SessionEnded(2, error), on.SessionClosed(2))
    assert ordered == [
        do.CloseSession(2),
        do.LogWarning(LogEvent.SESSION_ROTATION_FAILED, str(error)),
    ]
    assert play.state is RelayState.LIVE
    assert play.machine.sessions.shown == 1
    assert play.advance(RETRY - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(3)]


def test_the_wait_between_successors_that_fail_doubles_to_ten_minutes_and_starts_again() -> None:
    play = Play(ROTATING).with_successor()
    waits = []
    for number in range(2, 9):
        play.feed(on.SessionEnded(number, ENDED), on.SessionClosed(number))
        failed = play.now
        while number + 1 not in play.numbers:
            play.advance(1.0)
        waits.append(play.now - failed)
    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0]
    play.go_live(9)
    play.feed(on.SessionClosed(1))
    play.advance(LIFE)
    play.feed(on.SessionEnded(10, ENDED), on.SessionClosed(10))
    assert play.advance(RETRY) == [do.StartLink(11)]


def test_a_successor_is_not_asked_for_sooner_than_the_service_wants() -> None:
    play = Play(ROTATING).with_successor(Stage.CREATING)
    play.feed(on.SessionRefused(2, Throttled("slow", retry_after=90.0)), on.SessionClosed(2))
    assert play.advance(89.0) == []
    assert play.advance(1.0) == [do.StartLink(3)]


@pytest.mark.parametrize("asks", [on.Resumed(), on.FaceChosen(OTHER_FACE)])
def test_a_request_of_the_user_ends_the_wait_for_the_next_successor(asks: Event) -> None:
    play = Play(ROTATING).with_successor(Stage.CREATING)
    play.fail(NO_CREDIT, 2)
    assert do.StartLink(3) in play.feed(asks)


def test_while_the_old_session_is_closed_the_demand_is_live() -> None:
    play = Play(Policy(on_demand=True, session_max=100.0)).live()
    play.advance(100.0)
    play.go_live(2)
    assert play.numbers == [1, 2]
    assert play.machine.view(play.now).demand is DemandState.LIVE


def test_a_successor_whose_library_does_not_load_costs_no_session() -> None:
    play = Play(ROTATING).with_successor(Stage.LOADING)
    assert play.advance(READY_TIMEOUT)[0] == do.CloseSession(2)
    assert len(play.times(do.OpenSession)) == 1


@pytest.mark.parametrize(
    "obstacle",
    [
        on.SourceDown("gone"),
        on.OutputsChanged(working=False, reason="no output works"),
        on.ReadersChanged(CAMERA, 0),
    ],
)
def test_no_successor_is_begun_for_a_session_that_may_soon_be_of_no_use(obstacle: Event) -> None:
    play = Play(Policy(on_demand=True, session_max=100.0)).live()
    play.feed(on.SourceUp())
    play.advance(95.0)
    play.feed(obstacle)
    assert play.advance(10.0) == []


def test_a_face_that_was_chosen_meanwhile_is_used_by_the_successor() -> None:
    play = Play(ROTATING).live()
    play.advance(LIFE)
    play.feed(on.FaceChosen(OTHER_FACE), on.FaceApplied(1, OTHER_FACE))
    assert do.OpenSession(2, OTHER_FACE) in play.feed(on.LinkReady(2))


@pytest.mark.parametrize("away", ["reader", "source", "output"])
def test_readers_that_come_and_go_within_the_grace_time_do_not_cause_many_successors(
    away: str,
) -> None:
    """A shown session that is due for a successor, and a cause that ends each opening one."""
    gone, back = {
        "reader": (on.ReadersChanged(CAMERA, 0), on.ReadersChanged(CAMERA, 1)),
        "source": (on.SourceDown("gone"), on.SourceUp()),
        "output": (on.OutputsChanged(working=False), on.OutputsChanged(working=True)),
    }[away]
    play = Play(Policy(on_demand=True, session_max=100.0)).live()
    play.feed(on.SourceUp())
    play.advance(99.0)
    for _ in range(1800):
        play.advance(1.0)
        play.feed(gone)
        play.feed(*(on.SessionClosed(number) for number in play.numbers if number > 1))
        play.advance(1.0)
        play.feed(back)
    assert play.machine.sessions.shown == 1
    assert len(play.times(do.StartLink)) <= 3600.0 / RETRY + 2


@pytest.mark.parametrize("taken_over", [True, False])
def test_after_a_long_chain_of_sessions_a_failure_counts_as_the_first_again(
    taken_over: bool,  # noqa: FBT001 - a table
) -> None:
    play = Play(ROTATING)
    play.start()
    while play.machine._holdoff._backoff.failures < 8:
        play.fail(ENDED)
        play.advance(OPEN_BACKOFF[1])
    number = max(play.numbers)
    play.go_live(number)
    play.advance(LIFE)
    if taken_over:
        play.go_live(number + 1)
        play.advance(1.0)
    else:
        play.feed(on.SessionEnded(number, ENDED))
    play.feed(on.SessionEnded(number + 1, ENDED))
    play.feed(on.SessionClosed(number), on.SessionClosed(number + 1))
    assert play.advance(OPEN_BACKOFF[0]) == [do.StartLink(number + 2)]
