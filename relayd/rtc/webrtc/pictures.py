"""Pictures over aiortc: the track that is sent, and the buffer that received ones pass."""

import asyncio
import threading
from fractions import Fraction
from math import inf

import av  # aiortc's tracks carry av.VideoFrame
from aiortc import MediaStreamTrack
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError

from relayd.media.frames import I420

_ESTIMATE_EVERY = 1000
"""ms between two reports of the estimate."""
VIDEO_CLOCK_RATE = 90_000
"""Hz, the RTP clock of every video codec (RFC 3551 §5)."""


class PromptJitterBuffer(JitterBuffer):
    """Releases a picture with its last packet.

    aiortc waits for the first packet of the next picture, a whole frame interval longer. The
    marker bit is on the last packet of a picture (RFC 6184 §5.1, RFC 7741 §4.1); from a
    sender that does not set it, pictures are released as before.
    """

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        frame = super()._remove_frame(sequence_number)
        return self._marked_frame() if frame is None and self._is_video else frame

    def _marked_frame(self) -> JitterFrame | None:
        """Take the packets from the origin up to a marker, if none is missing."""
        assert self._origin is not None
        data: list[bytes] = []
        for count in range(self.capacity):
            packet = self._packets[(self._origin + count) % self.capacity]
            if packet is None:
                return None
            data.append(packet._data)  # type: ignore[attr-defined]  # noqa: SLF001 - set by aiortc
            if packet.marker:
                self.remove(count + 1)
                return JitterFrame(b"".join(data), packet.timestamp)
        return None


class SteadyEstimate:
    """Stands in for aiortc's estimate of the path to a receiver: always the configured bitrate.

    aiortc's own depends on Python's timing of packets: it brings a libwebrtc sender down to
    250 kbit/s on a perfect path. That sender still adapts to the losses that are reported to it.
    """

    bitrate = 0
    """bit/s, of the whole process as aiortc's other bounds."""

    def __init__(self) -> None:
        self._sources: set[int] = set()
        self._last = -inf

    def add(
        self,
        arrival_time_ms: int,
        abs_send_time: int,  # noqa: ARG002 - aiortc's signature
        payload_size: int,  # noqa: ARG002 - aiortc's signature
        ssrc: int,
    ) -> tuple[int, list[int]] | None:
        """Return bit/s and the streams they are for, once a second."""
        self._sources.add(ssrc)
        if arrival_time_ms - self._last < _ESTIMATE_EVERY:
            return None
        self._last = arrival_time_ms
        return self.bitrate, list(self._sources)


class PictureTrack(MediaStreamTrack):
    """The track that a sender reads: the newest pushed picture, each at most once."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()  # pyee below takes the names _lock, _loop and _waiting
        self._owner_loop = asyncio.get_running_loop()
        self._available = asyncio.Event()
        self._guard = threading.Lock()
        self._newest: av.VideoFrame | None = None
        self._last_pts = -1
        self._origin: float | None = None
        self.taken = 0
        self.dropped = 0

    def push(self, picture: I420, captured_at: float) -> None:
        """Make `picture` the next one to send; from any thread."""
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.time_base = Fraction(1, VIDEO_CLOCK_RATE)
        with self._guard:
            if self.readyState != "live":
                return
            if self._origin is None:
                self._origin = captured_at
            ticks = round((captured_at - self._origin) * VIDEO_CLOCK_RATE)
            # Receivers merge packets of one timestamp into one picture: each needs its own.
            self._last_pts = frame.pts = max(ticks, self._last_pts + 1)
            if self._newest is not None:
                self.dropped += 1
            self._newest = frame
            self._owner_loop.call_soon_threadsafe(self._available.set)

    async def recv(self) -> av.VideoFrame:
        """Wait for a picture (called by aiortc, which encodes it in an executor thread)."""
        while self.readyState == "live":
            await self._available.wait()
            self._available.clear()
            with self._guard:
                frame, self._newest = self._newest, None
            if frame is not None:
                self.taken += 1
                return frame
        raise MediaStreamError

    def stop(self) -> None:
        """End the track; later pushes are ignored."""
        with self._guard:
            super().stop()
