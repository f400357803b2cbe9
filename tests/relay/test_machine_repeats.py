"""The same event repeated at the same time, at each stage, causes no endless commands."""

import pytest

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.sessions import Stage
from tests.relay.playbook import (
    BAD_FACE,
    CAMERA,
    ENDED,
    FACE,
    LOST,
    NO_CREDIT,
    OTHER_FACE,
    ROTATING,
    STALLED,
    UNANSWERED,
    Play,
)

OF_A_SESSION: list[Event] = [
    on.SessionOpened(2), on.SessionReady(2), on.SessionRefused(2, NO_CREDIT), on.LinkReady(2),
    on.SessionDoubtful(2, UNANSWERED), on.SessionEnded(2, ENDED), on.SessionClosed(2),
    on.LinkJoined(2), on.PicturesFlow(2), on.PicturesStopped(2, STALLED, 0.0), on.LinkRecovered(2),
    on.LinkDegraded(2, "interrupted"), on.LinkLost(2, LOST), on.TokenFinal(2),
    on.FaceApplied(2, FACE), on.FaceRefused(2, OTHER_FACE, BAD_FACE),
    on.LinkLost(1, LOST), on.SessionEnded(1, ENDED), on.SessionClosed(1), on.TokenFinal(1),
]  # fmt: skip
OF_THE_SURROUNDINGS: list[Event] = [
    on.Started(), on.Stop(), on.TimerDue(), on.Paused(), on.Resumed(), on.FaceChosen(OTHER_FACE),
    on.PolicyChanged(ROTATING), on.ReadersChanged(CAMERA, 0), on.ReadersChanged(CAMERA, None),
    on.OutputsChanged(working=False), on.SourceUp(), on.SourceDown("gone"), on.SourceEnded(),
    on.BudgetChanged(spent=True), on.SleepComing(), on.WokeUp(),
]  # fmt: skip


@pytest.mark.parametrize("event", OF_A_SESSION + OF_THE_SURROUNDINGS, ids=repr)
def test_the_same_event_again_and_again_gives_few_commands_and_then_none(event: Event) -> None:
    for stage in list(Stage)[:6]:
        play = Play(ROTATING).with_successor(stage)
        before = len(play.history)
        for _ in range(10):
            play.feed(event)
        ordered = len(play.history) - before
        assert ordered <= 12
        for _ in range(10):
            play.feed(event)
        assert len(play.history) - before == ordered or event == on.TimerDue()


def test_a_timer_that_is_due_again_commands_nothing_but_the_next_timer() -> None:
    for stage in list(Stage)[:6]:
        play = Play(ROTATING).with_successor(stage)
        wake_at = play.wake_at
        before = len(play.history)
        play.feed(on.TimerDue(), on.TimerDue())
        again = [command for _, command in play.history[before:]]
        assert again == [do.WakeAt(wake_at)] * 2 * (wake_at is not None)
