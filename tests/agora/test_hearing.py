"""What a link does to hear the swapped user, decided without clocks and threads."""

import pytest

from relayd.rtc.agora.events import Connected, Reconnected, SdkEvent, SoundOffered, UserJoined
from relayd.rtc.agora.hearing import MOST_TRIES, SILENT_FOR, SUBSCRIBE_EVERY, Hearing

ON, OFF = SoundOffered("3", is_on=True), SoundOffered("3", is_on=False)


@pytest.fixture
def hearing() -> Hearing:
    return Hearing("3", is_wanted=True)


@pytest.mark.parametrize("event", [Connected(), Reconnected(), UserJoined("3")])
def test_the_user_is_subscribed_at_once_and_again_while_no_sound_is_offered(
    hearing: Hearing, event: SdkEvent
) -> None:
    assert not hearing.wants_subscription(0.0)
    hearing.handle(event, 1.0)
    assert hearing.wants_subscription(1.0)
    assert not hearing.wants_subscription(1.1)
    assert hearing.wants_subscription(1.0 + SUBSCRIBE_EVERY)
    hearing.handle(ON, 4.0)
    assert not hearing.wants_subscription(1.0 + 2 * SUBSCRIBE_EVERY)


def test_a_service_that_sends_no_sound_is_not_asked_without_end(hearing: Hearing) -> None:
    hearing.handle(UserJoined("3"), 0.0)
    asked = [hearing.wants_subscription(second) for second in range(100)]
    assert sum(asked) == MOST_TRIES
    assert not hearing.wants_playout(100.0)
    hearing.handle(UserJoined("3"), 100.0)  # it came again
    assert hearing.wants_subscription(100.0)


def test_a_silent_subscribed_user_asks_for_playout_once(hearing: Hearing) -> None:
    hearing.handle(Connected(), 0.0)
    hearing.handle(ON, 1.0)
    hearing.handle(ON, 2.0)  # another state of the same sound
    assert not hearing.wants_playout(1.0 + SILENT_FOR - 0.1)
    assert hearing.wants_playout(1.0 + SILENT_FOR)
    assert hearing.plays_out
    hearing.handle(Connected(), 5.0)
    hearing.handle(ON, 5.5)
    assert not hearing.wants_playout(100.0)


def test_a_user_that_is_heard_needs_no_playout(hearing: Hearing) -> None:
    hearing.handle(ON, 1.0)
    hearing.heard_at = 1.2
    assert not hearing.wants_playout(100.0)


def test_a_user_that_was_heard_and_is_silent_when_it_comes_again_costs_no_picture(
    hearing: Hearing,
) -> None:
    hearing.handle(ON, 1.0)
    hearing.heard_at = 1.2
    hearing.handle(UserJoined("3"), 50.0)
    hearing.handle(ON, 50.5)
    assert not hearing.wants_playout(100.0), "the library delivers sound, as it did before"


def test_a_muted_user_needs_no_playout(hearing: Hearing) -> None:
    hearing.handle(ON, 1.0)
    hearing.handle(OFF, 2.0)
    assert not hearing.wants_playout(100.0)
    hearing.handle(ON, 100.0)  # unmuted
    assert not hearing.wants_playout(100.0 + SILENT_FOR - 0.1)


def test_other_users_do_not_count(hearing: Hearing) -> None:
    hearing.handle(UserJoined("4"), 0.0)
    hearing.handle(SoundOffered("4", is_on=True), 0.0)
    assert not hearing.wants_subscription(100.0)
    assert not hearing.wants_playout(100.0)


def test_nothing_is_tried_where_no_sound_is_wanted() -> None:
    hearing = Hearing("3", is_wanted=False)
    hearing.handle(Connected(), 0.0)
    hearing.handle(ON, 0.0)
    assert not hearing.wants_subscription(0.0)
    assert not hearing.wants_playout(100.0)
