"""The relay's side of the sound exchanged with its worker process: two rings, one reader."""

from collections.abc import Callable
from contextlib import ExitStack
from threading import Event, Thread

from relayd.rtc.gate import Gate
from relayd.sound.blocks import OwnSound, ReturnedSound
from relayd.sound.ring import SharedRing

RING_SECONDS = 0.2
"""s of sound that may wait for a slow reader; what is older is dropped."""
BELL_TIMEOUT = 0.2
"""s after which the thread checks whether it should end."""


class SoundExchange:
    """Two rings, and the thread `relayd-sound-arrival` that passes on what the service returns."""

    def __init__(self, on_sound: Callable[[ReturnedSound], None]) -> None:
        """Create the rings; OSError if the machine has no descriptor left."""
        with ExitStack() as undo:
            self._outbound = SharedRing.create(RING_SECONDS, "outbound-sound")
            undo.callback(self._outbound.close)
            self._inbound = SharedRing.create(RING_SECONDS, "inbound-sound")
            undo.pop_all()
        self._passing = Gate(on_sound)
        self._stop = Event()
        # A daemon, as the other threads of a worker: a callback may never return.
        self._thread = Thread(target=self._run, name="relayd-sound-arrival", daemon=True)

    @property
    def fds(self) -> tuple[int, int, int, int]:
        """What the worker must inherit: memory and doorbell of the way out and of the way in."""
        return *self._outbound.fds, *self._inbound.fds

    @property
    def capacity(self) -> int:
        """Blocks that each ring has room for; the worker must know."""
        return self._outbound.capacity

    @property
    def missed(self) -> int:
        """Returned blocks that were dropped because they were taken too late."""
        return self._inbound.missed

    def start(self) -> None:
        """Pass on returned sound from now on; RuntimeError if the machine has no thread left."""
        self._thread.start()

    def publish(self, sound: OwnSound) -> None:
        """Hand a block to the worker; never blocks. For one thread."""
        self._outbound.write(sound.samples, sound.at)

    def end(self, within: float) -> bool:
        """Pass nothing on any more, and free the rings; False if a callback does not return.

        Waits up to `within` seconds for the callback. The thread then frees the way in itself.
        """
        self._stop.set()
        if self._thread.ident is None:
            self._inbound.close()
        else:
            self._thread.join(max(0.0, within))
        self._outbound.close()
        return self._passing.shut(0.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._inbound.wait(BELL_TIMEOUT):
                self._pass_on()
        self._inbound.close()

    def _pass_on(self) -> None:
        while not self._stop.is_set() and (got := self._inbound.read()):
            self._passing.put(ReturnedSound(*got))
