"""The source: away, released, resumed, failed; and what each means for a session."""

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.conditions import SOURCE_LOSS_LIMIT, WAITING_FOR_SOURCE
from relayd.relay.policy import Policy
from relayd.relay.sessions import Stage
from relayd.relay.status import RelayState
from tests.relay.playbook import CAMERA, ON_DEMAND, Play

COMES, LEAVES = on.ReadersChanged(CAMERA, 1), on.ReadersChanged(CAMERA, 0)
NO_CAMERA = on.SourceDown("no such camera")


def idle() -> Play:
    """Return a relay on demand that has released its source."""
    play = Play(ON_DEMAND)
    play.feed(on.Started())
    return play


def let_go_of(play: Play) -> None:
    """Let the last reader leave, and the grace time pass."""
    play.feed(LEAVES)
    play.advance(ON_DEMAND.grace)
    play.feed(*(on.SessionClosed(number) for number in play.numbers))


def test_before_the_first_picture_no_session_is_opened_and_the_reason_says_so() -> None:
    play = Play()
    play.feed(on.Started())
    assert play.advance(3600.0) == []
    assert (play.state, play.reason) == (RelayState.STANDBY, WAITING_FOR_SOURCE)
    assert play.feed(on.SourceUp()) == [do.StartLink(1)]


def test_a_loss_counts_from_its_first_moment_however_often_it_fails_again() -> None:
    play = Play().live()
    play.feed(on.SourceDown("gone"))
    play.advance(SOURCE_LOSS_LIMIT - 1.0)
    play.feed(on.SourceDown("still gone"))
    assert play.reason == "still gone"
    assert play.advance(1.0) == [do.CloseSession(1), do.Show(None)]


def test_a_source_that_is_back_gets_the_whole_loss_limit_again() -> None:
    play = Play().live()
    play.feed(on.SourceDown("gone"))
    play.advance(SOURCE_LOSS_LIMIT - 1.0)
    play.feed(on.SourceUp(), on.SourceDown("gone again"))
    assert play.advance(SOURCE_LOSS_LIMIT - 0.1) == []
    assert play.advance(0.1)[0] == do.CloseSession(1)


def test_a_resumed_source_counts_as_alive_until_it_fails() -> None:
    play = idle()
    play.feed(COMES)
    assert play.numbers == [1]
    play.reach(Stage.QUEUED)
    assert play.feed(NO_CAMERA) == [do.CloseSession(1)]
    assert play.state is RelayState.STANDBY
    assert play.reason == "no such camera"


def test_a_source_that_failed_when_resumed_must_deliver_a_picture_the_next_time() -> None:
    play = idle()
    play.feed(COMES, NO_CAMERA)
    let_go_of(play)
    assert play.feed(COMES) == [do.ResumeSource()]
    assert play.reason == "no such camera"
    assert play.feed(on.SourceUp()) == [do.StartLink(2)]
    play.go_live(2)
    play.advance(60.0)
    let_go_of(play)
    assert play.feed(COMES) == [do.ResumeSource(), do.StartLink(3)]


def test_a_source_that_fails_costs_one_short_session_and_then_none() -> None:
    play = idle()
    for _ in range(6):
        play.feed(COMES)
        if play.numbers:
            play.reach(Stage.CREATING)
        play.advance(0.7)
        play.feed(NO_CAMERA)
        play.advance(600.0)
        let_go_of(play)
    assert len(play.times(do.OpenSession)) == 1


def test_late_events_of_a_released_source_are_ignored() -> None:
    play = idle()
    play.feed(on.SourceUp())
    assert not play.machine.conditions.source.alive
    play.feed(NO_CAMERA)
    assert play.feed(COMES) == [do.ResumeSource(), do.StartLink(1)]


def test_a_recording_that_ended_is_opened_again_for_a_new_reader() -> None:
    play = Play(ON_DEMAND).live()
    play.feed(on.SourceUp())
    play.advance(60.0)
    play.feed(on.SourceEnded(), on.SessionClosed(1))
    assert play.advance(3600.0) == []
    let_go_of(play)
    assert play.feed(COMES) == [do.ResumeSource(), do.StartLink(2)]


def test_the_source_is_kept_open_where_sessions_do_not_depend_on_readers() -> None:
    play = Play(Policy()).live()
    play.feed(COMES, LEAVES)
    play.advance(3600.0)
    assert play.times(do.SuspendSource) == []


def test_a_pause_closes_the_source_and_a_resume_opens_it() -> None:
    play = Play(Policy()).live()
    play.feed(on.Paused())
    assert len(play.times(do.SuspendSource)) == 1
    play.feed(on.Resumed())
    assert len(play.times(do.ResumeSource)) == 1
