"""From the start to the first picture, and what follows a failure on the way."""

from itertools import pairwise

import pytest

from relayd.errors import (
    CredentialsRefused,
    InternalFault,
    JoinFailed,
    LibraryUnavailable,
    LinkForbidden,
    RelaydError,
    ServerFault,
    SessionUnknown,
    Throttled,
    WorkerDied,
)
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.holdoff import BLOCKED_RETRY, GOOD_AFTER, OPEN_BACKOFF
from relayd.relay.policy import Policy
from relayd.relay.sessions import (
    CREATE_TIMEOUT,
    JOIN_TIMEOUT,
    QUEUE_TIMEOUT,
    READY_TIMEOUT,
    Stage,
)
from relayd.relay.status import RelayState
from tests.relay.playbook import (
    BAD_FACE,
    ENDED,
    FACE,
    LOST,
    NO_CREDIT,
    NOT_JOINED,
    STALLED,
    TOKEN_REFUSED,
    Play,
    state_of,
)


def test_a_session_is_opened_for_a_worker_that_is_ready_and_shown_with_its_first_picture() -> None:
    play = Play()
    assert play.start() == [do.StartLink(1)]
    assert play.feed(on.LinkReady(1)) == [do.OpenSession(1, FACE)]
    assert state_of(play) is RelayState.OPENING
    assert play.feed(on.SessionOpened(1)) == []
    assert state_of(play) is RelayState.QUEUED
    assert play.feed(on.SessionReady(1)) == [do.JoinLink(1)]
    assert state_of(play) is RelayState.JOINING
    assert play.feed(on.LinkJoined(1)) == []
    assert state_of(play) is RelayState.WAITING
    assert play.feed(on.PicturesFlow(1)) == [do.Show(1)]
    assert state_of(play) is RelayState.LIVE
    assert play.advance(86400.0) == []
    assert play.wake_at is None


def test_a_picture_that_arrives_before_the_join_is_reported_counts() -> None:
    play = Play()
    play.start()
    play.reach(Stage.JOINING)
    assert play.feed(on.PicturesFlow(1)) == [do.Show(1)]
    assert play.feed(on.LinkJoined(1)) == []
    assert play.state is RelayState.LIVE


def test_events_out_of_order_change_nothing() -> None:
    play = Play()
    play.start()
    play.feed(on.SessionReady(1), on.LinkJoined(1), on.PicturesFlow(1), on.LinkRecovered(1))
    assert play.session(1).stage is Stage.LOADING
    play.feed(on.LinkReady(1))
    assert play.feed(on.LinkReady(1), on.SessionReady(1), on.PicturesFlow(1)) == []
    assert play.session(1).stage is Stage.CREATING


@pytest.mark.parametrize(
    ("stage", "limit", "reason"),
    [
        (Stage.LOADING, READY_TIMEOUT, "does not load within 20 s"),
        (Stage.CREATING, CREATE_TIMEOUT, "no session was opened within 90 s"),
        (Stage.QUEUED, QUEUE_TIMEOUT, "still queued after 120 s"),
        (Stage.JOINING, JOIN_TIMEOUT, "not joined within 15 s"),
        (Stage.WAITING, 20.0, "no swapped picture within 20 s"),
    ],
)
def test_each_stage_has_a_limit_after_which_the_session_is_closed_and_another_is_tried(
    stage: Stage, limit: float, reason: str
) -> None:
    play = Play()
    play.start()
    play.reach(stage)
    assert play.advance(limit - 0.1) == []
    assert play.advance(0.1) == [do.CloseSession(1)]
    assert play.state is RelayState.BACKOFF
    assert reason in play.reason
    play.feed(on.SessionClosed(1))
    assert play.advance(OPEN_BACKOFF[0]) == [do.StartLink(2)]


def test_the_wait_for_the_first_picture_is_the_settings() -> None:
    play = Play(Policy(first_frame_timeout=7.0))
    play.start()
    play.reach(Stage.WAITING)
    assert play.advance(6.9) == []
    assert play.advance(0.1) == [do.CloseSession(1)]


PASSES = [
    NOT_JOINED, LOST, STALLED, ENDED, WorkerDied("gone"), ServerFault("503"), InternalFault("oops"),
    Throttled("slow"), TOKEN_REFUSED,
]  # fmt: skip
NEEDS_A_PERSON = [
    NO_CREDIT, BAD_FACE, CredentialsRefused("wrong key"), LinkForbidden("wrong app id"),
    LibraryUnavailable("not installed"), SessionUnknown("gone"),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSES, ids=lambda error: type(error).__name__)
def test_a_temporary_failure_is_tried_again_soon(error: RelaydError) -> None:
    play = Play()
    play.start()
    play.fail(error)
    assert (play.state, play.reason) == (RelayState.BACKOFF, str(error))
    assert play.advance(OPEN_BACKOFF[0] - 0.01) == []
    assert play.advance(0.01) == [do.StartLink(2)]


@pytest.mark.parametrize("error", NEEDS_A_PERSON, ids=lambda error: type(error).__name__)
def test_a_failure_that_needs_a_person_is_not_tried_in_a_loop(error: RelaydError) -> None:
    play = Play()
    play.start()
    play.fail(error)
    assert (play.state, play.reason) == (RelayState.BLOCKED, str(error))
    assert play.advance(BLOCKED_RETRY - 0.1) == []
    assert play.state is RelayState.BLOCKED
    assert play.advance(0.1) == [do.StartLink(2)]


@pytest.mark.parametrize(
    ("asked", "waited"), [(0.1, OPEN_BACKOFF[0]), (90.0, 90.0), (86400.0, BLOCKED_RETRY)]
)
def test_a_wait_that_the_service_asks_for_is_kept_up_to_ten_minutes(
    asked: float, waited: float
) -> None:
    play = Play()
    play.start()
    play.fail(Throttled("slow", retry_after=asked))
    assert play.advance(waited - 0.05) == []
    assert play.advance(0.05) == [do.StartLink(2)]


def fail_for_ever(play: Play, hours: float) -> list[float]:
    """Let each session fail at once; returns the waits between them."""
    end = play.now + hours * 3600.0
    while play.now < end and play.wake_at is not None:
        if play.numbers:
            play.fail(ENDED)
        play.advance(play.wake_at - play.now)
    return [after - before for before, after in pairwise(play.times(do.StartLink))]


def test_the_wait_between_tries_doubles_up_to_half_a_minute() -> None:
    play = Play()
    play.start()
    waits = fail_for_ever(play, hours=1)
    assert waits[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert set(waits[7:]) == {30.0}
    assert len(waits) <= 3600.0 / 30.0 + 7


@pytest.mark.parametrize(("live_for", "waits"), [(GOOD_AFTER, 16.0), (GOOD_AFTER + 0.1, 0.5)])
def test_after_a_long_live_session_the_wait_starts_again(live_for: float, waits: float) -> None:
    play = Play()
    play.start()
    for _ in range(5):
        play.fail(ENDED)
        play.advance(play.machine._holdoff.deadlines()[1] - play.now)
    number = max(play.numbers)
    play.go_live(number)
    play.advance(live_for)
    play.feed(on.SessionEnded(number, ENDED), on.SessionClosed(number))
    assert play.advance(waits - 0.1) == []
    assert play.advance(0.1) == [do.StartLink(number + 1)]


def test_a_slow_close_is_awaited_though_the_wait_is_over() -> None:
    play = Play()
    play.start()
    play.reach(Stage.QUEUED)
    play.feed(on.SessionEnded(1, ENDED))
    assert play.advance(10.0) == []
    assert play.feed(on.SessionClosed(1)) == [do.StartLink(2)]


def test_a_session_that_never_answers_its_close_is_followed_by_another() -> None:
    play = Play()
    play.start()
    play.reach(Stage.QUEUED)
    play.feed(on.SessionEnded(1, JoinFailed("no")))
    ordered = play.advance(45.0)
    assert isinstance(ordered[0], do.LogWarning)
    assert ordered[1:] == [do.StartLink(2)]
