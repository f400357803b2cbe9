"""What a source reader has been asked to do: stop, restart, pause or resume."""

from threading import Event

from relayd.clock import Clock


class Requests:
    """Requests of any thread to the one that waits for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stop, self._restart, self._paused = Event(), Event(), Event()
        self.wake = Event()
        """Set on each request, and on any other change that the waiting thread should check."""

    def stop(self) -> None:
        """Ask for the end."""
        self._stop.set()
        self.wake.set()

    def restart(self) -> None:
        """Ask for another connection."""
        self._restart.set()
        self.wake.set()

    def pause(self) -> None:
        """Ask for no connection until `resume`."""
        self._paused.set()
        self.restart()

    def resume(self) -> None:
        """Ask for a connection again."""
        self._paused.clear()
        self.restart()

    @property
    def is_stopped(self) -> bool:
        """Whether the end was asked for."""
        return self._stop.is_set()

    @property
    def is_paused(self) -> bool:
        """Whether no connection is wanted for now."""
        return self._paused.is_set()

    @property
    def wants_none(self) -> bool:
        """Whether no connection is wanted, for now or any more."""
        return self.is_stopped or self.is_paused

    def take_restart(self) -> None:
        """Forget a request to restart; before looking at what is wanted, so that none is missed."""
        self._restart.clear()

    def take_wake(self) -> bool:
        """Whether there is a request; forgets what woke the thread."""
        self.wake.clear()  # before the check, so that no request is missed
        return self._stop.is_set() or self._restart.is_set()

    def wait_until(self, moment: float | None) -> None:
        """Wait until `moment` (None: without limit), or a request."""
        while not self.take_wake():
            if moment is None:
                self.wake.wait()
            elif not self._clock.sleep_until(moment, self.wake):
                return
