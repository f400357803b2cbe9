"""Pictures and sound in and out of libwebrtc's tracks."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from relayd.media.frames import I420
from relayd.rtc.webrtc.libwebrtc import library
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples

MOST_PICTURES = 2
"""Decoded pictures that may wait to be taken; of more, the oldest is dropped."""
MOST_BLOCKS = 10
"""Blocks of sound that may wait, either way: 100 ms. Of more, the oldest is dropped."""
_STEP = 1000
"""µs between two pictures at least: libwebrtc drops one whose millisecond is not later."""
_CHECK = 5
"""Blocks between two looks at whether packets of sound still arrive."""
_SILENT = 2
"""Looks in a row without a packet after which the sender is taken to be silent."""
_UNEVEN = 0.03
"""s that a block may be off its even time before the times start over."""


class _Writer:
    """Writes what there is into a track, one after the other. Made in the loop."""

    def __init__(self, writable: Any, take: Callable[[], Any]) -> None:
        """`take` returns what is to be written next; None while there is nothing."""
        self._writer = writable.get_writer()
        self._take = take
        self._writing: asyncio.Future[None] | None = None

    def write(self) -> None:
        """Write what there is, unless that is being done."""
        if self._writing is None and (one := self._take()) is not None:
            self._writing = self._writer.write(one)
            self._writing.add_done_callback(self._written)

    async def abort(self) -> None:
        """End the track."""
        await asyncio.gather(self._writer.abort(), return_exceptions=True)

    def _written(self, done: "asyncio.Future[None]") -> None:
        if not done.cancelled():
            done.exception()  # a write that fails as the track ends is no fault
        self._writing = None
        self.write()


class PictureSource:
    """A track of the newest pushed picture, each at most once. Made in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._generator = library.VideoTrackGenerator()
        self._writer = _Writer(self._generator.writable, self._take)
        self._guard = threading.Lock()
        self._newest: Any = None
        self._is_open, self._is_started = True, False
        self._last = 0
        self.taken = 0
        self.dropped = 0

    @property
    def track(self) -> Any:
        """The track."""
        return self._generator.track

    def start(self) -> None:
        """Hand pictures on from now on: those before the connection would be lost."""
        self._is_started = True
        self._writer.write()

    def push(self, picture: I420, captured_at: float) -> None:
        """Make `picture` the next one to send; from any thread."""
        height, width = picture.shape[0] * 2 // 3, picture.shape[1]
        with self._guard:
            if not self._is_open:
                return
            self._last = max(round(captured_at * 1e6), self._last + _STEP)
            init = library.VideoFrameBufferInit(
                format="I420", coded_width=width, coded_height=height, timestamp=self._last
            )
            if self._newest is not None:
                self._newest.close()
                self.dropped += 1
            self._newest = library.VideoFrame(picture, init)
            self._loop.call_soon_threadsafe(self._writer.write)

    async def close(self) -> None:
        """End the track; later pushes are ignored."""
        with self._guard:
            self._is_open = False
            if self._newest is not None:
                self._newest.close()
                self._newest = None
        await self._writer.abort()

    def _take(self) -> Any:
        if not self._is_started:
            return None
        with self._guard:
            frame, self._newest = self._newest, None
        self.taken += frame is not None
        return frame


class SoundSource:
    """A track of pushed blocks, in order. Made in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._generator = library.MediaStreamTrackGenerator("audio")
        self._writer = _Writer(self._generator.writable, self._take)
        self._waiting: deque[tuple[bytes, float]] = deque(maxlen=MOST_BLOCKS)
        self._is_open = True

    @property
    def track(self) -> Any:
        """The track."""
        return self._generator

    def push(self, samples: Samples, at: float) -> None:
        """Send the block that was captured at `at`, monotonic s; from one thread, any."""
        if self._is_open:
            self._waiting.append((samples.tobytes(), at))
            self._loop.call_soon_threadsafe(self._writer.write)

    async def close(self) -> None:
        """End the track; later pushes are ignored."""
        self._is_open = False
        self._waiting.clear()
        await self._writer.abort()

    def _take(self) -> Any:
        if not self._waiting:
            return None
        data, at = self._waiting.popleft()
        init = library.AudioDataInit(
            format="s16",
            sample_rate=RATE,
            number_of_frames=BLOCK,
            number_of_channels=1,
            timestamp=round(at * 1e6),
            data=data,
        )
        return library.AudioData(init)


async def read_pictures(track: Any, on_picture: Callable[[I420, float], None]) -> None:
    """Pass on each decoded picture of a track until it ends, odd sizes cut to even ones."""
    init = library.MediaStreamTrackProcessorInit(track, max_buffer_size=MOST_PICTURES)
    async for frame in library.MediaStreamTrackProcessor(init).readable:
        with frame:
            if frame.format != "I420":  # what all of its software decoders make
                continue
            width, height = max(2, frame.coded_width & ~1), max(2, frame.coded_height & ~1)
            picture = np.empty((height * 3 // 2, width), np.uint8)
            rect = library.DOMRectInit(0, 0, width, height)
            frame.copy_to(picture.data.cast("B"), library.VideoFrameCopyToOptions(rect=rect))
        on_picture(picture, time.monotonic())


async def read_sound(receiver: Any, on_sound: Callable[[Samples, float], None]) -> None:
    """Pass on each block of a receiver's track until it ends, while packets arrive.

    libwebrtc goes on with silence, whether somebody sends or not.
    """
    init = library.MediaStreamTrackProcessorInit(receiver.track, max_buffer_size=MOST_BLOCKS)
    arrivals, even = _Arrivals(receiver), EvenTimes()
    async for data in library.MediaStreamTrackProcessor(init).readable:
        with data:
            samples = _mono(data)
        at = even.next(time.monotonic())
        if arrivals.last_long() and samples is not None:
            on_sound(samples, at)


class EvenTimes:
    """Gives each block its even time, though the blocks come early and late."""

    def __init__(self) -> None:
        self._next = 0.0

    def next(self, now: float) -> float:
        """Return the time of the block that came at `now`."""
        at = self._next if abs(now - self._next) <= _UNEVEN else now
        self._next = at + BLOCK_SECONDS
        return at


class _Arrivals:
    """Notices from the newest time stamp whether packets of sound arrive."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver
        self._blocks = 0
        self._newest: object = None
        self._silent = _SILENT

    def last_long(self) -> bool:
        """Whether a packet came lately; called with each block."""
        self._blocks += 1
        if self._blocks % _CHECK == 0:
            sources = self._receiver.get_synchronization_sources()
            newest = sources[0].rtp_timestamp if sources else None
            self._silent = 0 if newest != self._newest else self._silent + 1
            self._newest = newest
        return self._silent < _SILENT


def _mono(data: Any) -> Samples | None:
    """Return a block as 480 samples; None for one of another rate, which none was asked for."""
    if (data.sample_rate, data.number_of_frames) != (RATE, BLOCK):
        return None
    samples = np.empty((BLOCK, int(data.number_of_channels)), np.int16)
    options = library.AudioDataCopyToOptions(plane_index=0, format="s16")
    data.copy_to(samples.data.cast("B"), options)
    if samples.shape[1] == 1:
        return samples.reshape(BLOCK)
    mono: Samples = np.rint(samples.mean(axis=1)).astype(np.int16)
    return mono
