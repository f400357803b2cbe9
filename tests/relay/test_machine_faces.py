"""The face of a session: the one chosen last, in each session that accepts it."""

import pytest

from relayd.errors import RelaydError, RequestRefused, Throttled
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.holdoff import BLOCKED_RETRY
from relayd.relay.sessions import FACE_RETRY, FACE_TRIES, Stage
from relayd.relay.status import RelayState
from tests.relay.playbook import (
    BAD_FACE,
    CAMERA,
    FACE,
    LOST,
    ON_DEMAND,
    OTHER_FACE,
    ROTATING,
    THIRD_FACE,
    Play,
)

NOT_YET = RequestRefused("this cannot be operated on", code=1010)
SLOW = Throttled("slow")
CHOSEN = on.FaceChosen(OTHER_FACE)


def worn(number: int = 1) -> on.FaceApplied:
    """Return the event that the other face is on."""
    return on.FaceApplied(number, OTHER_FACE)


def refused(error: RelaydError, number: int = 1) -> on.FaceRefused:
    """Return the event that the other face was refused."""
    return on.FaceRefused(number, OTHER_FACE, error)


def test_a_session_is_opened_with_the_face_of_the_settings() -> None:
    play = Play()
    play.start()
    assert play.feed(on.LinkReady(1)) == [do.OpenSession(1, FACE)]


@pytest.mark.parametrize("stage", [None, Stage.LOADING])
def test_a_face_chosen_before_the_session_is_the_one_that_it_is_opened_with(
    stage: Stage | None,
) -> None:
    play = Play(ON_DEMAND)
    play.feed(on.Started())
    if stage is None:
        assert play.feed(CHOSEN) == []
    play.feed(on.ReadersChanged(CAMERA, 1))
    assert play.feed(CHOSEN) == []
    assert play.feed(on.LinkReady(1)) == [do.OpenSession(1, OTHER_FACE)]
    assert play.feed(on.SessionOpened(1)) == []


@pytest.mark.parametrize("stage", list(Stage)[2:6])
def test_an_open_session_gets_another_face_at_once_and_once(stage: Stage) -> None:
    play = Play()
    play.start()
    play.reach(stage)
    assert play.feed(CHOSEN) == [do.UpdateFace(1, OTHER_FACE)]
    assert play.feed(CHOSEN) == []
    assert play.feed(worn()) == []
    assert play.advance(3600.0 if stage is Stage.LIVE else 1.0) == []


def test_a_face_chosen_while_the_session_is_created_is_put_on_once_it_is_open() -> None:
    play = Play()
    play.start()
    play.reach(Stage.CREATING)
    assert play.feed(CHOSEN) == []
    assert play.feed(on.SessionOpened(1)) == [do.UpdateFace(1, OTHER_FACE)]


def test_both_sessions_get_another_face_during_a_takeover() -> None:
    play = Play(ROTATING).with_successor()
    assert play.feed(CHOSEN) == [do.UpdateFace(1, OTHER_FACE), do.UpdateFace(2, OTHER_FACE)]


def test_a_successor_that_refuses_a_face_gets_it_once_live_and_neither_session_goes_back() -> None:
    play = Play(ROTATING).with_successor()
    play.feed(CHOSEN)
    play.feed(worn(1), refused(NOT_YET, 2))
    assert play.machine.face == OTHER_FACE
    assert play.advance(60.0) == []
    play.reach(Stage.WAITING, 2)
    assert do.UpdateFace(2, OTHER_FACE) in play.feed(on.PicturesFlow(2))
    play.feed(worn(2))
    assert play.session(2).face == OTHER_FACE


@pytest.mark.parametrize("error", [SLOW, NOT_YET])
def test_a_live_session_gets_a_few_tries_with_waits_and_then_only_the_next_session(
    error: RelaydError,
) -> None:
    play = Play().live()
    play.feed(CHOSEN)
    for _ in range(FACE_TRIES - 1):
        play.feed(refused(error))
        assert play.advance(FACE_RETRY - 0.1) == []
        assert play.advance(0.1) == [do.UpdateFace(1, OTHER_FACE)]
    play.feed(refused(error))
    assert play.advance(3600.0) == []
    play.feed(on.SessionEnded(1, LOST), on.SessionClosed(1))
    play.advance(1.0)
    assert play.feed(on.LinkReady(2)) == [do.OpenSession(2, OTHER_FACE)]


def test_a_face_that_was_put_on_gives_the_next_one_all_its_tries() -> None:
    play = Play().live()
    play.feed(CHOSEN)
    play.feed(refused(SLOW))
    play.advance(FACE_RETRY)
    play.feed(worn())
    assert play.session(1).face_tries == 0


def test_a_face_that_is_chosen_again_is_tried_at_once() -> None:
    play = Play().live()
    play.feed(CHOSEN)
    for _ in range(FACE_TRIES):
        play.feed(refused(SLOW))
        play.advance(FACE_RETRY)
    assert play.feed(CHOSEN) == [do.UpdateFace(1, OTHER_FACE)]


def test_a_picture_that_cannot_be_used_replaces_none_that_can() -> None:
    play = Play().live()
    play.feed(CHOSEN)
    assert play.feed(refused(BAD_FACE)) == []
    assert play.machine.face == FACE
    assert play.advance(3600.0) == []
    assert play.state is RelayState.LIVE


def test_a_picture_that_a_queued_session_refuses_is_tried_once_it_is_live() -> None:
    play = Play()
    play.start()
    play.reach(Stage.QUEUED)
    play.feed(CHOSEN)
    assert play.feed(refused(BAD_FACE)) == []
    assert play.machine.face == OTHER_FACE
    play.reach(Stage.WAITING)
    assert do.UpdateFace(1, OTHER_FACE) in play.feed(on.PicturesFlow(1))
    play.feed(refused(BAD_FACE))
    assert play.machine.face == FACE


def test_the_face_chosen_last_is_put_on_though_an_earlier_one_is_still_being_put_on() -> None:
    play = Play().live()
    assert play.feed(on.FaceChosen(THIRD_FACE)) == [do.UpdateFace(1, THIRD_FACE)]
    assert play.feed(CHOSEN) == []
    assert play.feed(on.FaceApplied(1, THIRD_FACE)) == [do.UpdateFace(1, OTHER_FACE)]
    assert play.feed(worn()) == []


@pytest.mark.parametrize("error", [SLOW, NOT_YET, BAD_FACE])
@pytest.mark.parametrize("stage", [Stage.QUEUED, Stage.LIVE])
def test_the_refusal_of_an_earlier_face_does_not_delay_the_one_chosen_last(
    error: RelaydError, stage: Stage
) -> None:
    play = Play()
    play.start()
    play.reach(stage)
    play.feed(on.FaceChosen(THIRD_FACE), CHOSEN)
    refusal = on.FaceRefused(1, THIRD_FACE, error)
    assert play.feed(refusal) == [do.UpdateFace(1, OTHER_FACE)]
    assert play.session(1).face_tries == 0
    assert play.machine.face == OTHER_FACE


def test_choosing_the_first_face_again_while_another_is_put_on_restores_the_first() -> None:
    play = Play().live()
    play.feed(CHOSEN)
    play.feed(on.FaceChosen(FACE))
    assert play.feed(worn()) == [do.UpdateFace(1, FACE)]


def test_a_rejoined_session_gets_the_face_again_that_it_refused() -> None:
    play = Play().live()
    play.feed(CHOSEN)
    play.feed(on.LinkLost(1, LOST))
    play.feed(refused(SLOW))
    play.reach(Stage.WAITING)
    assert do.UpdateFace(1, OTHER_FACE) in play.feed(on.PicturesFlow(1))


def test_a_face_that_the_service_cannot_use_blocks_until_another_is_chosen() -> None:
    play = Play()
    play.start()
    play.fail(BAD_FACE)
    assert (play.state, play.reason) == (RelayState.BLOCKED, str(BAD_FACE))
    assert play.advance(BLOCKED_RETRY - 0.1) == []
    assert play.feed(CHOSEN) == [do.StartLink(2)]
    assert play.feed(on.LinkReady(2)) == [do.OpenSession(2, OTHER_FACE)]
