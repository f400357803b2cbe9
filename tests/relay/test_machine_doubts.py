"""Lost answers: each may have left a billed session with an unknown id."""

from collections.abc import Callable

import pytest

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.holdoff import DOUBT_MEMORY, DOUBT_TEXT, DOUBT_WAIT, MAX_DOUBTS
from relayd.relay.sessions import Stage
from relayd.relay.status import RelayState
from tests.relay.playbook import (
    BEGAN,
    CAMERA,
    LOST,
    NO_CREDIT,
    ON_DEMAND,
    OTHER_FACE,
    ROTATING,
    UNANSWERED,
    Play,
)

HOUR = 3600.0


def lose_answer(play: Play) -> None:
    """Lose the answer of the create in flight."""
    number = max(play.numbers)
    play.reach(Stage.CREATING, number)
    play.feed(on.SessionDoubtful(number, UNANSWERED), on.SessionClosed(number))


def lose_answers_for_ever(play: Play, hours: float) -> list[float]:
    """Lose the answer of each create; returns their start times, relative to the first."""
    begun = []
    end = play.now + hours * HOUR
    while play.now < end:
        if play.numbers:
            begun.append(play.now - BEGAN)
            lose_answer(play)
        play.advance(1.0)
    return begun


def test_after_the_first_lost_answer_it_waits_five_minutes_then_ten_then_for_a_person() -> None:
    play = Play()
    play.start()
    begun = lose_answers_for_ever(play, hours=24)
    assert begun == [0.0, pytest.approx(DOUBT_WAIT, abs=2), pytest.approx(3 * DOUBT_WAIT, abs=3)]
    assert play.state is RelayState.BLOCKED
    assert DOUBT_TEXT in play.reason
    assert "relayd resume" in play.reason
    assert play.machine.doubtful == MAX_DOUBTS


def test_it_says_how_long_it_waits_after_a_lost_answer() -> None:
    play = Play()
    play.start()
    lose_answer(play)
    assert play.state is RelayState.BACKOFF
    assert "5 min" in play.reason
    play.advance(DOUBT_WAIT)
    lose_answer(play)
    assert "10 min" in play.reason


def test_a_resume_ends_the_wait_and_resets_the_count_of_doubts() -> None:
    play = Play()
    play.start()
    lose_answers_for_ever(play, hours=1)
    assert play.feed(on.Resumed()) == [do.StartLink(4)]
    lose_answer(play)
    assert play.state is RelayState.BACKOFF
    assert "5 min" in play.reason
    assert play.machine.doubtful == MAX_DOUBTS + 1


READERS_COME = on.ReadersChanged(CAMERA, 0), on.ReadersChanged(CAMERA, 1)
A_FACE = (on.FaceChosen(OTHER_FACE),)
A_SOURCE = on.SourceDown("gone"), on.SourceUp()
A_SLEEP = on.SleepComing(), on.WokeUp()
A_NEW_DAY = on.BudgetChanged(spent=True), on.BudgetChanged(spent=False)
OUTPUTS = on.OutputsChanged(working=False), on.OutputsChanged(working=True)


@pytest.mark.parametrize("happens", [READERS_COME, A_FACE, A_SOURCE, A_SLEEP, A_NEW_DAY, OUTPUTS])
@pytest.mark.parametrize("doubts", [1, 2, 3])
def test_nothing_but_a_resume_shortens_the_wait_after_lost_answers(
    happens: tuple[Event, ...], doubts: int
) -> None:
    play = Play(ON_DEMAND)
    play.start()
    play.feed(on.ReadersChanged(CAMERA, 1))
    for number in range(1, doubts + 1):
        lose_answer(play)
        if number < doubts:
            play.advance(number * DOUBT_WAIT)
    reason = play.reason
    assert play.feed(*happens) == []
    assert play.advance(DOUBT_WAIT * min(doubts, 2) - 1.0) == []
    assert play.reason == reason


@pytest.mark.parametrize(
    ("doubts", "state", "reason"),
    [
        ([BEGAN - 1], RelayState.BACKOFF, "5 min"),
        ([BEGAN - 700, BEGAN - 1], RelayState.BACKOFF, "10 min"),
        ([BEGAN - 1, BEGAN - 700], RelayState.BACKOFF, "10 min"),
        ([BEGAN - 2000, BEGAN - 1000, BEGAN - 1], RelayState.BLOCKED, DOUBT_TEXT),
        ([BEGAN - 3 * DOUBT_WAIT], RelayState.OPENING, ""),
        ([BEGAN - DOUBT_MEMORY - 1, BEGAN - 700, BEGAN - 1], RelayState.BACKOFF, "10 min"),
    ],
)
def test_lost_answers_of_an_earlier_run_count_as_if_there_had_been_no_restart(
    doubts: list[float], state: RelayState, reason: str
) -> None:
    play = Play(doubts=doubts)
    play.start()
    assert play.state is state
    assert reason in play.reason


def test_lost_answers_long_ago_count_no_more() -> None:
    play = Play()
    play.start()
    for _ in range(5):
        lose_answer(play)
        assert "5 min" in play.reason
        play.advance(DOUBT_WAIT)
        play.go_live(max(play.numbers))
        play.advance(DOUBT_MEMORY)
        play.feed(on.SessionEnded(max(play.numbers), NO_CREDIT))
        play.feed(on.SessionClosed(max(play.numbers)), on.Paused(), on.Resumed())


def test_an_answer_lost_while_the_session_is_being_closed_counts() -> None:
    play = Play(ON_DEMAND)
    play.start()
    play.feed(on.ReadersChanged(CAMERA, 1))
    play.reach(Stage.CREATING)
    assert play.feed(on.ReadersChanged(CAMERA, 0)) == [do.CloseSession(1)]
    assert play.feed(on.SessionDoubtful(1, UNANSWERED), on.SessionClosed(1)) == []
    assert play.machine.doubtful == 1
    play.feed(on.ReadersChanged(CAMERA, 1))
    assert play.advance(DOUBT_WAIT - 1.0) == []
    assert "may" in play.reason
    assert play.advance(1.0) == [do.StartLink(2)]


def test_an_answer_lost_by_a_successor_holds_back_the_next_successor() -> None:
    play = Play(ROTATING).with_successor(Stage.CREATING)
    play.feed(on.SessionDoubtful(2, UNANSWERED), on.SessionClosed(2))
    assert play.state is RelayState.LIVE
    assert play.advance(DOUBT_WAIT - 1.0) == []
    assert play.advance(1.0) == [do.StartLink(3)]


@pytest.mark.parametrize(("doubts", "state"), [(1, RelayState.BACKOFF), (3, RelayState.BLOCKED)])
def test_a_lost_answer_is_reported_though_the_old_session_failed_after_it(
    doubts: int, state: RelayState
) -> None:
    play = Play(ROTATING).with_successor(Stage.CREATING)
    for doubt in range(1, doubts + 1):
        lose_answer(play)
        if doubt < doubts:
            play.advance(doubt * DOUBT_WAIT)
    play.feed(on.SessionEnded(1, LOST), on.SessionClosed(1))
    play.advance(60.0)
    assert play.state is state
    assert "may be open at the service" in play.reason
    assert play.numbers == []


def test_a_face_ends_the_wait_after_a_refusal_though_an_answer_was_lost_long_before() -> None:
    play = Play()
    play.start()
    lose_answer(play)
    play.advance(DOUBT_WAIT)
    play.fail(NO_CREDIT)
    assert play.state is RelayState.BLOCKED
    assert play.feed(on.FaceChosen(OTHER_FACE)) == [do.StartLink(3)]


def test_each_lost_answer_is_counted_once() -> None:
    count: Callable[[Play], int] = lambda play: play.machine.doubtful  # noqa: E731 - short here
    play = Play()
    play.start()
    assert count(play) == 0
    lose_answer(play)
    play.feed(on.SessionRefused(1, NO_CREDIT), on.TimerDue())
    assert count(play) == 1
