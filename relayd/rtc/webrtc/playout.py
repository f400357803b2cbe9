"""Returned sound in even time: puts packets in order, repairs losses, keeps the delay.

A packet is played DEPTH after its arrival, so that those behind it may be late or overtaken. What
is missing when it is due is concealed at once, for as long as the packet would have lasted: a
loss costs no delay. Delay that a slow path left behind is taken out again.

Pure: time comes with each call, and the codec is a function.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relayd.sound.blocks import BLOCK, RATE, Samples

DEPTH: Final = 0.03
"""s that a packet waits for those before it. Opus packets have 20 ms: when one is missing, the
next one is there, and tells that it was lost, 10 ms before its turn."""
_EXCESS: Final = 0.02
"""s above DEPTH that packets may always wait before some are left out."""
_WINDOW: Final = 1.0
"""s over which the shortest wait is taken: delay that a loss or a pause of the path left behind
is gone within two of them."""
_MOST: Final = 0.2
"""s of packets that may wait: a longer queue, after a pause of the path, is cut at once."""
_CONCEALED: Final = 0.06
"""s of concealment for packets that may yet come. Then the sender is taken to be silent."""
_LATE: Final = 0.1
"""s behind its time after which the caller is taken to have been away: nothing is made up for."""
_USUAL: Final = 960
"""Samples of a packet, before the first has come."""
_FADE: Final = 480
"""Samples over which concealment fades out."""
_FADE_IN: Final = 240
"""Samples over which sound comes back: 5 ms."""
Wave = NDArray[np.int16]
"""int16, one dimension of any length: samples, mono, 48 kHz."""

_SEQUENCES: Final = 1 << 16
_FARTHEST: Final = 500
"""Packets by which a number may differ from the expected one; a larger step is a new stream."""


@dataclass(slots=True)
class PlayoutCounts:
    """Counts since the start."""

    played: int = 0
    """Packets."""
    lost: int = 0
    """Packets that never came, or after their turn."""
    left_out: int = 0
    """Packets left out to shorten the delay."""
    dried: int = 0
    """Times that the sender fell silent, or the path broke."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    payload: bytes
    arrived_at: float


class Playout:
    """Packets in as they arrive, blocks out each at its time; for one thread."""

    def __init__(self, decode: Callable[[bytes], Wave]) -> None:
        """`decode` turns a packet into int16 samples, mono, 48 kHz; empty if it is invalid."""
        self._decode = decode
        self._packets: dict[int, _Waiting] = {}
        self._next: int | None = None
        """Number of the packet to play next; None while nothing is played."""
        self._due = inf
        """When to play it, monotonic s."""
        self._newest = 0
        self._length = _USUAL
        self._ahead = 0
        """Samples concealed for packets of which nobody knows yet whether they are lost."""
        self._last = np.zeros(0, np.int16)
        self._is_concealing = True
        self._rest = np.zeros(0, np.int16)
        """Samples that do not make a block yet."""
        self._shortest = inf
        self._window_ends = inf
        self.counts = PlayoutCounts()

    @property
    def due(self) -> float:
        """When to call `take` next, monotonic s; inf if there is nothing to be played."""
        return self._due

    @property
    def held(self) -> float:
        """Seconds of sound that wait."""
        return len(self._packets) * self._length / RATE

    def put(self, sequence: int, payload: bytes, now: float) -> None:
        """Add a packet with its 16-bit RTP sequence number, which arrived at `now`."""
        number = self._extended(sequence)
        if self._next is not None and abs(number - self._newest) > _FARTHEST:
            self._stop()
            number = sequence
        if self._next is None:
            self._next, self._due = number, now + DEPTH
            self._newest, self._window_ends = number, now + _WINDOW
        if number < self._next:  # its turn has passed
            return
        self._newest = max(self._newest, number)
        self._packets[number] = _Waiting(payload, now)

    def take(self, now: float) -> list[tuple[Samples, float]]:
        """Return the blocks that are due, each with the time it is due."""
        blocks: list[tuple[Samples, float]] = []
        while self._due <= now:
            if now - self._due > _LATE:
                self._catch_up(now)
            due = self._due
            samples = self._next_samples(due)
            if samples is None:
                self._stop()
                break
            self._due += len(samples) / RATE
            blocks += self._sliced(samples, due)
        return blocks

    def _next_samples(self, now: float) -> Wave | None:
        """Return what to play now; None if the sender fell silent."""
        assert self._next is not None
        if not self._packets:
            if self._ahead >= _CONCEALED * RATE:
                return None
            self._ahead += self._length
            return self._conceal()
        self._skip_what_was_concealed(min(self._packets))
        waiting = self._packets.pop(self._next, None)
        self._next += 1
        if waiting is None:
            self.counts.lost += 1
            return self._conceal()
        samples = self._decoded(waiting)
        excess = self._excess(now - waiting.arrived_at, now)
        return self._leave_out(samples, excess) if excess else samples

    def _skip_what_was_concealed(self, oldest: int) -> None:
        """Leave out lost packets in whose place concealment was played already."""
        assert self._next is not None
        concealed = min(self._ahead // self._length, oldest - self._next)
        self._next += concealed
        self.counts.lost += concealed
        self._ahead = 0

    def _decoded(self, waiting: _Waiting) -> Wave:
        samples = self._decode(waiting.payload)
        if not len(samples):
            self.counts.lost += 1
            return self._conceal()
        self._length = len(samples)
        self.counts.played += 1
        if self._is_concealing:
            samples = _faded_in(samples)
            self._is_concealing = False
        self._last = samples
        return samples

    def _conceal(self) -> Wave:
        """Return what stands in for a packet: the last sound backwards and fading, then silence.

        Played backwards, it goes on from the very sample at which the sound broke off.
        """
        samples = np.zeros(self._length, np.int16)
        if not self._is_concealing:
            echo = self._last[: -_FADE - 1 : -1].astype(np.float32)[: self._length]
            gains = np.linspace(1, 0, len(echo), endpoint=False, dtype=np.float32)
            samples[: len(echo)] = np.rint(echo * gains)
        self._is_concealing = True
        return samples

    def _excess(self, waited: float, now: float) -> int:
        """Return how many packets to leave out, the queue being longer than it needs to be."""
        if self.held > _MOST:
            return self._packets_in(self.held - DEPTH)
        self._shortest = min(self._shortest, waited)
        if now < self._window_ends:
            return 0
        shortest, self._shortest, self._window_ends = self._shortest, inf, now + _WINDOW
        return self._packets_in(shortest - DEPTH) if shortest > DEPTH + _EXCESS else 0

    def _packets_in(self, seconds: float) -> int:
        return int(seconds * RATE / self._length)

    def _leave_out(self, samples: Wave, count: int) -> Wave:
        """Return `samples` faded over to the packet `count` later, which is then the last."""
        assert self._next is not None
        later = samples
        for _ in range(count):
            waiting = self._packets.pop(self._next, None)
            self._next += 1
            self.counts.left_out += 1
            later = self._conceal() if waiting is None else self._decoded(waiting)
        self._shortest = inf
        if len(later) != len(samples):
            return _faded_in(later)
        return _crossed(samples, later)

    def _catch_up(self, now: float) -> None:
        """Go on at `now` after a time away, with the newest packets."""
        assert self._next is not None
        keep = self._packets_in(DEPTH) + 1
        for number in sorted(self._packets)[:-keep]:
            del self._packets[number]
            self.counts.left_out += 1
        if self._packets:
            self._next = min(self._packets)
        self._due, self._shortest, self._ahead = now, inf, 0

    def _stop(self) -> None:
        """Play nothing until the next packet, which starts over."""
        self.counts.dried += self._next is not None
        self._packets.clear()
        self._next, self._due = None, inf
        self._shortest, self._ahead = inf, 0
        self._rest = self._rest[:0]
        self._is_concealing = True

    def _sliced(self, samples: Wave, due: float) -> Iterator[tuple[Samples, float]]:
        due -= len(self._rest) / RATE
        whole = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        end = len(whole) - len(whole) % BLOCK
        self._rest = whole[end:]
        for start in range(0, end, BLOCK):
            yield np.ascontiguousarray(whole[start : start + BLOCK]), due + start / RATE

    def _extended(self, sequence: int) -> int:
        """Return the 16-bit number without its wraps: the one that is nearest to the newest."""
        if self._next is None:
            return sequence
        step = (sequence - self._newest) % _SEQUENCES
        return self._newest + (step - _SEQUENCES if step >= _SEQUENCES // 2 else step)


def _faded_in(samples: Wave) -> Wave:
    faded = samples.copy()
    length = min(_FADE_IN, len(faded))
    gains = np.linspace(0, 1, length, endpoint=False, dtype=np.float32)
    faded[:length] = np.rint(faded[:length] * gains)
    return faded


def _crossed(one: Wave, other: Wave) -> Wave:
    gains = np.linspace(0, 1, len(one), dtype=np.float32)
    return np.rint(one * (1 - gains) + other * gains).astype(np.int16)
