from relayd.errors import SourceLost
from relayd.source.events import SourceDown, SourceEnded, SourceOpened
from relayd.source.health import SourceHealth

OPENED = SourceOpened(1280, 720, 30.0, "h264")


def test_before_the_first_picture_it_is_infinitely_long_away_and_says_what_it_waits_for():
    health = SourceHealth()
    assert health.away(100.0) == float("inf")
    assert "first picture" in health.reason


def test_a_loss_counts_from_its_first_moment_however_often_a_retry_fails():
    health = SourceHealth()
    health.hear(OPENED, 100.0)
    assert health.away(105.0) == 0.0
    health.hear(SourceDown(SourceLost("gone"), 0.25), 110.0)
    health.hear(SourceDown(SourceLost("still gone"), 0.5), 112.0)
    assert health.away(115.0) == 5.0
    assert health.reason == "still gone"
    health.hear(OPENED, 120.0)
    assert (health.alive, health.reason, health.away(121.0)) == (True, "", 0.0)


def test_an_end_is_for_good():
    health = SourceHealth()
    health.hear(OPENED, 100.0)
    health.hear(SourceEnded(), 110.0)
    assert health.away(110.1) == float("inf")


def test_a_source_that_is_woken_counts_as_there_until_it_says_otherwise():
    health = SourceHealth()
    health.rest()
    assert (health.alive, health.away(100.0)) == (False, float("inf"))
    health.wake()
    assert (health.alive, health.away(100.0)) == (False, 0.0)
    assert "first picture" in health.reason
    health.hear(OPENED, 101.0)
    assert (health.alive, health.away(102.0)) == (True, 0.0)


def test_a_source_that_failed_when_it_was_woken_must_show_itself_the_next_time():
    health = SourceHealth()
    health.rest()
    health.wake()
    health.hear(SourceDown(SourceLost("no camera"), 1.0), 101.0)
    assert health.away(101.0) == float("inf")
    health.rest()
    health.wake()
    assert health.away(201.0) == float("inf")
    assert health.reason == "no camera"
    health.hear(OPENED, 202.0)
    health.rest()
    health.wake()
    assert health.away(301.0) == 0.0


def test_what_a_resting_source_still_tells_is_of_the_past():
    health = SourceHealth()
    health.hear(OPENED, 100.0)
    health.rest()
    health.hear(OPENED, 101.0)
    assert (health.alive, health.away(102.0)) == (False, float("inf"))
