"""What ends sessions: pause, stop, sleep, the day's limit, a source or outputs that are away."""

import pytest

from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.conditions import ASLEEP, OUTPUT_LOSS_LIMIT, PAUSED, SOURCE_LOSS_LIMIT
from relayd.relay.events import Event
from relayd.relay.holdoff import BLOCKED_RETRY
from relayd.relay.sessions import CLOSE_TIMEOUT, Stage
from relayd.relay.status import RelayState
from tests.relay.playbook import (
    CAMERA,
    ENDED,
    LOST,
    NO_CREDIT,
    ON_DEMAND,
    OTHER_FACE,
    ROTATING,
    UNANSWERED,
    Play,
)

STAGES = list(Stage)[:6]
SPENT = on.BudgetChanged(spent=True, reason="60 of 60 minutes are used up")
NEW_DAY = on.BudgetChanged(spent=False)
NO_OUTPUT = on.OutputsChanged(working=False, reason="the camera was unplugged")
ENDS = {
    "stop": on.Stop(),
    "pause": on.Paused(),
    "sleep": on.SleepComing(),
    "budget": SPENT,
}


def at_stage(stage: Stage) -> Play:
    """Return a relay whose session is at this stage."""
    play = Play()
    play.start()
    play.reach(stage)
    return play


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("end", ENDS)
def test_an_unwanted_session_is_closed_at_once_and_once_in_any_stage(
    stage: Stage, end: str
) -> None:
    play = at_stage(stage)
    ordered = play.feed(ENDS[end])
    source = [do.SuspendSource()] * (end == "pause")
    shown = [do.Show(None)] * (stage is Stage.LIVE)
    assert ordered == [do.CloseSession(1), *source, *shown]
    assert play.advance(CLOSE_TIMEOUT - 1.0) == []
    assert play.feed(on.SessionClosed(1)) == []
    assert play.numbers == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("end", ENDS)
def test_a_successor_being_opened_is_closed_with_the_session_that_it_was_for(
    stage: Stage, end: str
) -> None:
    play = Play(ROTATING)
    play.with_successor(stage)
    source = [do.SuspendSource()] * (end == "pause")
    closed = [2] if stage is Stage.LIVE else [1, 2]
    expected = [*map(do.CloseSession, closed), *source, do.Show(None)]
    assert play.feed(ENDS[end]) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_events_of_a_session_that_is_being_closed_change_nothing(stage: Stage) -> None:
    play = at_stage(stage)
    play.feed(on.Paused())
    late: list[Event] = [
        on.LinkReady(1), on.SessionOpened(1), on.SessionReady(1), on.LinkJoined(1),
        on.PicturesFlow(1), on.PicturesStopped(1, LOST, play.now), on.LinkDegraded(1, "x"),
        on.LinkRecovered(1), on.TokenExpiring(1), on.TokenFinal(1),
        on.FaceApplied(1, OTHER_FACE), on.FaceRefused(1, OTHER_FACE, NO_CREDIT),
        on.LinkLost(1, LOST), on.SessionEnded(1, ENDED), on.SessionRefused(1, ENDED),
    ]  # fmt: skip
    assert play.feed(*late) == []
    assert play.session(1).stage is Stage.CLOSING


def test_events_of_a_session_that_is_gone_change_nothing() -> None:
    play = at_stage(Stage.CREATING)
    play.feed(on.Paused(), on.SessionClosed(1))
    count = len(play.history)
    play.feed(
        on.SessionClosed(1), on.SessionOpened(1), on.LinkReady(1), on.PicturesFlow(1),
        on.LinkLost(1, LOST), on.SessionEnded(99, ENDED), on.TokenFinal(1),
    )  # fmt: skip
    assert len(play.history) == count


def test_an_answer_lost_after_its_session_was_given_up_still_counts() -> None:
    play = at_stage(Stage.CREATING)
    play.feed(on.Paused())
    play.advance(CLOSE_TIMEOUT)
    assert play.numbers == []
    play.feed(on.SessionDoubtful(1, UNANSWERED))
    assert play.machine.doubtful == 1


def test_a_close_that_is_never_over_is_given_up_with_a_warning() -> None:
    play = at_stage(Stage.LIVE)
    play.feed(on.Stop())
    (note,) = play.advance(CLOSE_TIMEOUT)
    assert isinstance(note, do.LogWarning)
    assert note.event == "session.close_given_up"
    assert play.machine.is_over


@pytest.mark.parametrize("stage", STAGES)
def test_after_a_stop_no_event_causes_a_command(stage: Stage) -> None:
    play = at_stage(stage)
    play.feed(on.Stop())
    assert play.state is RelayState.CLOSING
    assert not play.machine.is_over
    play.feed(on.SessionClosed(1))
    assert play.machine.is_over
    assert play.wake_at is None
    count = len(play.history)
    happens: list[Event] = [
        on.Started(), on.Resumed(), on.Paused(), on.SourceDown("gone"), on.SourceUp(), on.WokeUp(),
        on.FaceChosen(OTHER_FACE), NEW_DAY, on.PolicyChanged(ON_DEMAND), on.SourceEnded(),
        on.ReadersChanged(CAMERA, 1), on.ReadersChanged(CAMERA, 0), NO_OUTPUT, on.TimerDue(),
        on.Stop(), on.SleepComing(), on.SessionClosed(1), on.SessionOpened(1),
    ]  # fmt: skip
    play.feed(*happens)
    assert len(play.history) == count


def test_a_relay_on_demand_that_ends_wants_no_timer_and_no_source() -> None:
    play = Play(ON_DEMAND).live()
    play.feed(on.SourceUp(), on.ReadersChanged(CAMERA, 0))
    assert play.feed(on.Stop()) == [do.CloseSession(1), do.Show(None)]
    assert play.advance(ON_DEMAND.grace + 1.0) == []
    assert play.feed(on.ReadersChanged(CAMERA, 1)) == []
    play.feed(on.SessionClosed(1))
    assert play.wake_at is None
    idle = Play(ON_DEMAND)
    idle.feed(on.Started(), on.ReadersChanged(CAMERA, 1), on.Stop())
    assert idle.feed(on.ReadersChanged(CAMERA, 0), on.ReadersChanged(CAMERA, 1)) == []


@pytest.mark.parametrize("before", [(), (on.SourceUp(),), (on.Paused(),)])
def test_a_stop_before_the_start_ends_it(before: tuple[Event, ...]) -> None:
    play = Play()
    assert play.feed(*before, on.Stop()) == []
    assert play.machine.is_over
    assert play.feed(on.Started(), on.SourceUp(), on.Resumed()) == []


def test_nothing_is_started_before_the_outputs_show_pictures() -> None:
    play = Play()
    assert play.feed(on.SourceUp(), on.ReadersChanged(CAMERA, 1), on.TimerDue()) == []
    assert play.history == []


def test_a_paused_relay_stays_paused_when_readers_come() -> None:
    play = Play(ON_DEMAND)
    play.feed(on.Started(), on.Paused())
    assert play.feed(on.ReadersChanged(CAMERA, 1), on.SourceUp()) == []
    assert play.advance(86400.0) == []
    assert (play.state, play.reason) == (RelayState.STANDBY, PAUSED)
    assert play.feed(on.Resumed()) == [do.ResumeSource(), do.StartLink(1)]


def test_a_pause_holds_while_the_close_goes_on_and_a_resume_waits_for_it() -> None:
    play = at_stage(Stage.LIVE)
    play.feed(on.Paused())
    assert play.feed(on.Resumed()) == [do.ResumeSource()]
    assert play.feed(on.SessionClosed(1)) == [do.StartLink(2)]


@pytest.mark.parametrize("live_for", [0.0, 1.0, 60.0])
def test_a_resume_ends_the_wait_for_the_next_try(live_for: float) -> None:
    play = at_stage(Stage.LIVE)
    play.advance(live_for)
    play.feed(on.SessionEnded(1, NO_CREDIT), on.SessionClosed(1))
    assert play.state is RelayState.BLOCKED
    assert play.feed(on.Resumed()) == [do.StartLink(2)]


def test_a_request_during_a_session_does_not_end_the_wait_after_it() -> None:
    play = at_stage(Stage.LIVE)
    play.feed(on.Resumed(), on.FaceChosen(OTHER_FACE))
    play.feed(on.SessionEnded(1, LOST))
    assert play.feed(on.SessionClosed(1)) == []
    assert play.state is RelayState.BACKOFF


def test_before_sleep_every_session_is_closed_and_after_it_another_is_opened() -> None:
    play = at_stage(Stage.LIVE)
    play.advance(60.0)
    play.feed(on.SleepComing())
    assert (play.state, play.reason) == (RelayState.STANDBY, ASLEEP)
    assert play.feed(on.SessionClosed(1)) == []
    assert play.advance(3600.0) == []
    assert play.feed(on.WokeUp()) == [do.StartLink(2)]


def test_at_the_days_limit_it_is_blocked_with_a_reason_until_the_new_day() -> None:
    play = at_stage(Stage.LIVE)
    play.advance(60.0)
    play.feed(SPENT, on.SessionClosed(1))
    assert (play.state, play.reason) == (RelayState.BLOCKED, "60 of 60 minutes are used up")
    assert play.feed(on.Resumed(), on.FaceChosen(OTHER_FACE)) == []
    assert play.advance(3600.0) == []
    assert play.feed(NEW_DAY) == [do.StartLink(2)]


@pytest.mark.parametrize(
    ("gone", "back", "patience"),
    [
        (on.SourceDown("gone"), on.SourceUp(), SOURCE_LOSS_LIMIT),
        (NO_OUTPUT, on.OutputsChanged(working=True), OUTPUT_LOSS_LIMIT),
    ],
)
def test_a_session_is_kept_for_a_while_for_a_source_or_outputs_that_may_come_back(
    gone: Event, back: Event, patience: float
) -> None:
    play = at_stage(Stage.LIVE)
    play.feed(gone)
    assert play.advance(patience - 0.1) == []
    assert play.feed(back) == []
    assert play.advance(2 * patience) == []
    play.feed(gone)
    play.advance(patience / 2)
    play.feed(gone)  # reported again, it counts from the first time
    assert play.advance(patience / 2 - 0.1) == []
    assert play.advance(0.1) == [do.CloseSession(1), do.Show(None)]
    play.feed(on.SessionClosed(1))
    assert play.advance(3600.0) == []
    assert play.feed(back) == [do.StartLink(2)]


@pytest.mark.parametrize("stage", STAGES)
def test_the_end_of_a_recording_closes_the_session_at_once(stage: Stage) -> None:
    play = at_stage(stage)
    assert do.CloseSession(1) in play.feed(on.SourceEnded())
    assert (play.state, play.reason) == (RelayState.STANDBY, "the source has ended")


@pytest.mark.parametrize(
    ("gone", "reason"),
    [(on.SourceDown("no such camera"), "no such camera"), (NO_OUTPUT, "the camera was unplugged")],
)
def test_no_session_is_opened_without_a_source_or_an_output(gone: Event, reason: str) -> None:
    play = Play()
    play.feed(on.SourceUp(), gone, on.Started())
    assert play.advance(BLOCKED_RETRY) == []
    assert (play.state, play.reason) == (RelayState.STANDBY, reason)


def test_a_session_whose_worker_still_loads_is_not_opened_without_a_source() -> None:
    play = at_stage(Stage.LOADING)
    assert play.feed(on.SourceDown("gone")) == [do.CloseSession(1)]
