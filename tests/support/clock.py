"""Time that tests control."""

from threading import Event


class FakeClock:
    """Time that passes only when the test sleeps or works."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep_until(self, moment: float, stop: Event) -> bool:
        self.time = max(self.time, moment)
        return stop.is_set()
