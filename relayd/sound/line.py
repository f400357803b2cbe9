"""A delay line for one voice that follows a wanted delay, without clicks and without a pause.

While the delay is right, samples are copied as they are. A small error is worked off by reading
at most 1 % faster or slower, a large one by cuts in pauses of speech, each cross-faded.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples, silence
from relayd.sound.lateness import Lateness
from relayd.sound.pauses import Pauses
from relayd.sound.stretch import BEFORE, TAPS, interpolate, places
from relayd.sound.timeline import EDGE, Timeline, faded_in, faded_out

MAX_DELAY: Final = 2.8
"""s; `[sound] delay` allows 2.5."""
_DEAD: Final = 0.010 * RATE
"""Samples of error that start no correction: nobody sees 10 ms."""
_DONE: Final = 0.001 * RATE
"""Samples of error at which a correction ends."""
_LATE: Final = 0.070 * RATE
"""Samples by which sound may be late before it is cut; less is worked off by reading faster, and
below 60 ms, which viewers accept, after 1 s."""
_EARLY: Final = 0.040 * RATE
"""Samples by which sound may be early before it is cut: early sound is noticed sooner."""
_PATIENCE: Final = 1.2
"""s to wait for pauses. Then speech is cut, to be back in sync within 2 s."""
_LEAST_LEFT_OUT: Final = BLOCK
"""Samples of a pause that are worth leaving out."""
_LEAST_REPEATED: Final = 4 * BLOCK
"""Samples of a pause that are worth repeating: a shorter piece, again and again, would hum."""
_SEEK: Final = RATE * 4 // 1000
"""Samples around a cut in speech within which the best fit is looked for: a period of 125 Hz."""
_MOST_RATE: Final = 0.010
"""Of speed: 17 hundredths of a semitone, which nobody notices in speech."""
_LEAST_RATE: Final = 0.0005
"""Of speed, so that a correction ends."""
_EASE: Final = 0.001
"""Change of the speed from one block to the next."""
_RATE_OF_ERROR: Final = 1 / (0.4 * RATE)
"""Change of speed per sample of error: full speed from 4 ms on."""
_AHEAD: Final = EDGE
"""Samples after a block that must be there: enough to fade out before the sound ends."""
_CROSS: Final[NDArray[np.float32]] = (
    0.5 - 0.5 * np.cos(np.pi * (np.arange(BLOCK) + 0.5) / BLOCK)
).astype(np.float32)
"""Gains of the new part in a cross-fade of 10 ms."""


@dataclass(slots=True)
class LineCounts:
    """What a delay line did since it was made."""

    cuts_in_pauses: int = 0
    cuts_in_speech: int = 0
    """Cuts after the line waited for a pause in vain."""
    skips: int = 0
    """Jumps because the caller left out blocks."""
    stretched: int = 0
    """Blocks read faster or slower."""
    dried: int = 0
    """Times that there was nothing to play, after there had been something."""


class DelayLine:
    """Sound in by time of capture, sound out `delay` seconds later; for one thread."""

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._pauses = Pauses()
        self._lateness = Lateness()
        self._want = self._delay = 0.0
        self._read = 0.0
        """Number of the next sample to play; between two of them while stretching."""
        self._rate = 1.0
        self._is_dry = True
        """Whether silence is played until the sound for the wanted delay is there."""
        self._is_broken = False
        """Whether the clock jumped so that what was to be played next is gone."""
        self._rest = silence()[:_AHEAD]
        """What would have followed the last block, for such a case."""
        self._is_stretching = self._is_cutting = False
        self._waited = 0
        """Blocks since a cut became necessary."""
        self._pulled_at: float | None = None
        self.counts = LineCounts()

    @property
    def delay(self) -> float:
        """Seconds from the capture of what was played last until it was played."""
        return self._delay

    @property
    def wanted(self) -> float:
        """Seconds that the line steers to: as asked, or the least that the source allows."""
        return min(max(self._want, self._lateness.least_delay), MAX_DELAY)

    @property
    def rate_ppm(self) -> float:
        """How much faster than it was spoken sound is played now, in millionths."""
        return (self._rate - 1) * 1e6

    @property
    def gap_seconds(self) -> float:
        """Seconds of silence put into holes of the source so far."""
        return self._timeline.gap_seconds

    @property
    def resyncs(self) -> int:
        """Times that the source's clock went back, or forward by more than a second."""
        return self._timeline.resyncs

    def push(self, samples: Samples, at: float) -> None:
        """Add a block whose first sample was captured at `at`, monotonic s."""
        before = self._timeline.end
        self._timeline.push(samples, at)
        self._lateness.pushed(at)
        place = self._timeline.end - len(samples)
        replaced = place < before and place < self._read + _AHEAD
        self._is_broken |= not self._is_dry and (replaced or self._timeline.oldest > self._read)

    def steer(self, seconds: float) -> None:
        """Aim at a delay of `seconds`, 0 to MAX_DELAY; a source that is later sets the least."""
        self._want = min(max(seconds, 0.0), MAX_DELAY)

    def pull(self, now: float) -> Samples:
        """Return the next block, to be played at `now`, monotonic s; silence if there is none.

        To be called every 10 ms, after what has come was pushed. Where calls were left out, the
        sound skips as much.
        """
        missed = 0.0 if self._pulled_at is None else now - self._pulled_at - BLOCK_SECONDS
        has_missed = self._pulled_at is None or abs(missed) > BLOCK_SECONDS / 2
        self._pulled_at = now
        self._lateness.pulled(now, was_away=has_missed)
        if self._timeline.is_empty:
            return silence()
        here = self._timeline.number_at(now)
        if self._is_broken:
            return self._run_dry(self._rest)
        if self._is_dry:
            return self._start(here)
        if has_missed:
            self.counts.skips += 1
            block = self._jump(round(missed * RATE))
        else:
            block = self._follow(self.wanted * RATE - (here - self._read))
        self._delay = (here + BLOCK - self._read) / RATE
        return self._end_softly(block)

    def clear(self) -> None:
        """Overwrite the voice that waits, and begin again; the wanted delay stays."""
        self._timeline.clear()
        self._lateness = Lateness()
        self._is_dry, self._is_broken, self._pulled_at = True, False, None
        self._rest = silence()[:_AHEAD]

    def _start(self, here: float) -> Samples:
        """Play from the right place on, if the sound there has come."""
        self._delay = self.wanted
        start = round(here - self._delay * RATE)
        if not self._timeline.oldest < start + BLOCK <= self._timeline.end - _AHEAD:
            return silence()
        self._is_dry, self._rate, self._read = False, 1.0, float(start + BLOCK)
        self._is_stretching = self._is_cutting = False
        self._waited = 0
        self._pauses.forget()
        return self._end_softly(faded_in(self._timeline.span(start, BLOCK)))

    def _follow(self, error: float) -> Samples:
        """Return the next block; `error` is how many samples later the sound should come."""
        self._pauses.add(self._timeline.span(int(self._read), BLOCK))
        if cut := self._cut_length(error):
            return self._jump(cut)
        limit = _DONE if self._is_stretching else _DEAD
        self._is_stretching = abs(error) > limit
        goal = 1.0
        if self._is_stretching:
            change = min(max(abs(error) * _RATE_OF_ERROR, _LEAST_RATE), _MOST_RATE)
            goal -= change if error > 0 else -change
        self._rate += min(max(goal - self._rate, -_EASE), _EASE)
        if abs(self._rate - 1) < 1e-6:  # noqa: PLR2004 - the rounding of the sums above
            self._rate = 1.0
        return self._play()

    def _play(self) -> Samples:
        """Return the block at the reading place, at the present speed."""
        start, self._read = self._read, self._read + self._rate * BLOCK
        if self._rate != 1.0:
            self.counts.stretched += 1
            return _rounded(self._between(start, self._rate))
        whole = round(start)
        self._read = float(whole + BLOCK)
        block = self._timeline.span(whole, BLOCK)
        if start == whole:
            return block.copy()
        return _rounded(_crossed(self._between(start, 1.0), block))

    def _between(self, start: float, rate: float) -> NDArray[np.float32]:
        """Return a block read at `rate` from `start` on, which may lie between two samples."""
        at = places(start, rate)
        first = int(at[0]) - BEFORE
        return interpolate(
            self._timeline.span(first, ceil(at[-1]) - first + TAPS), at - first - BEFORE
        )

    def _cut_length(self, error: float) -> int:
        """Return by how many samples to jump now, forward or (negative) back; 0 for not at all."""
        if not self._is_cutting and -_LATE <= error <= _EARLY:
            return 0
        self._is_cutting = abs(error) > _DEAD
        if not self._is_cutting:
            self._waited = 0
            return 0
        self._waited += 1
        if self._waited * BLOCK_SECONDS > _PATIENCE:
            self.counts.cuts_in_speech += 1
            self._waited = 0
            return self._best_fit(round(-error))
        shift = self._repeatable(error) if error > 0 else self._dispensable(-error)
        self.counts.cuts_in_pauses += shift != 0
        return shift

    def _repeatable(self, error: float) -> int:
        """Return how far to jump back (negative) within the pause at the reading place."""
        room = self._pauses.passed - BLOCK
        return -round(min(error, room)) if room >= min(error, _LEAST_REPEATED) else 0

    def _dispensable(self, error: float) -> int:
        """Return how much of the pause at the reading place to leave out."""
        start = round(self._read)
        length = min(round(error) + BLOCK, self._timeline.end - _AHEAD - start)
        if not self._pauses.passed or length < 2 * BLOCK:
            return 0
        room = self._pauses.quiet_ahead(self._timeline.span(start, length)) - BLOCK
        return round(min(error, room)) if room >= _LEAST_LEFT_OUT else 0

    def _best_fit(self, shift: int) -> int:
        """Return a jump near `shift` after which the wave goes on as it would have."""
        start = round(self._read)
        latest = self._timeline.end - _AHEAD - BLOCK - _SEEK
        target = min(start + shift, latest)
        here = self._timeline.span(start, BLOCK).astype(np.float32)
        area = self._timeline.span(target - _SEEK, BLOCK + 2 * _SEEK).astype(np.float32)
        fit = np.correlate(area, here, "valid")
        energy = np.convolve(area * area, np.ones(BLOCK, np.float32), "valid")
        return target - _SEEK + int(np.argmax(fit / np.sqrt(energy + 1))) - start

    def _jump(self, shift: int) -> Samples:
        """Go on `shift` samples later (or earlier) in the sound, by a cross-fade."""
        to = round(self._read) + shift
        block = _crossed(self._between(self._read, self._rate), self._timeline.span(to, BLOCK))
        self._read, self._rate = float(to + BLOCK), 1.0
        self._pauses.jumped()
        return _rounded(block)

    def _end_softly(self, block: Samples) -> Samples:
        """Fade the block out if so little is left after it that the next one might be cut off."""
        left = self._timeline.end - ceil(self._read)
        if left < _AHEAD:
            return self._run_dry(block[: max(0, BLOCK + left)])
        self._rest = self._timeline.span(ceil(self._read), _AHEAD).copy()
        return block

    def _run_dry(self, last: Samples) -> Samples:
        """Fade out `last`, at most a block, and play silence until there is sound again."""
        self._is_dry, self._is_broken = True, False
        self.counts.dried += 1
        block = silence()
        block[: len(last)] = faded_out(last[:BLOCK])
        return block


def _crossed(old: NDArray[np.float32], new: Samples) -> NDArray[np.float32]:
    crossed: NDArray[np.float32] = old + (new - old) * _CROSS
    return crossed


def _rounded(wave: NDArray[np.float32]) -> Samples:
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)
