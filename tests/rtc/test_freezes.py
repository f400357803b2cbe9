from relayd.rtc.webrtc.freezes import FreezeCounter


def freezes(*intervals: float) -> int:
    counter, now = FreezeCounter(), 100.0
    counter.put(now)
    for interval in intervals:
        now += interval
        counter.put(now)
    return counter.count


def test_even_pictures_are_no_freeze_at_any_rate() -> None:
    assert freezes(*[0.05] * 100) == freezes(*[1.0] * 20) == freezes() == 0


def test_a_pause_far_above_the_usual_interval_is_one_freeze() -> None:
    assert freezes(*[0.05] * 40, 0.5, *[0.05] * 40) == 1


def test_a_pause_that_nobody_notices_is_none() -> None:
    assert freezes(*[0.05] * 40, 0.19, *[0.05] * 40) == 0
    assert freezes(*[0.5] * 40, 1.4, *[0.5] * 40) == 0
