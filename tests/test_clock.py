from relayd.clock import Backoff


def test_backoff_starts_short_doubles_to_its_cap_and_resets_after_a_good_period() -> None:
    backoff = Backoff(0.25, 10.0, jitter=lambda: 0.5)
    waits = [backoff.next_wait() for _ in range(8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.next_wait(good_for=9.9) == 10.0
    assert backoff.next_wait(good_for=10.0) == 0.25


def test_jitter_keeps_many_relays_from_retrying_at_once() -> None:
    low = Backoff(1.0, 60.0, jitter=lambda: 0.0)
    high = Backoff(1.0, 60.0, jitter=lambda: 1.0)
    low.next_wait()
    high.next_wait()
    assert (low.next_wait(), high.next_wait()) == (1.5, 2.5)
