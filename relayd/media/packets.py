"""Reads the packets of one video stream, and takes down what they show of it."""

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, cast

import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from relayd.media import compat
from relayd.media.picture import CodedPicture
from relayd.media.refusals import read_failure

if TYPE_CHECKING:
    from av.packet import Packet


class PacketReader:
    """Reads an open container; its owner drops it when it closes that."""

    def __init__(self, container: InputContainer, stream: VideoStream, name: str) -> None:
        """`name` is the source in errors."""
        self._container, self._stream, self._name = container, stream, name
        self.waited = 0.0
        """Seconds spent so far in waiting for data, not in decoding it."""
        self.count = 0
        """Packets read so far, decodable or not."""
        self.key_interval = 0.0
        """s: the longest stretch between two key frames so far, by their time stamps."""
        self._last_key: float | None = None

    @property
    def has_key(self) -> bool:
        """Whether there was a packet at which decoding can start."""
        return self._last_key is not None

    def packets(self) -> Generator[CodedPicture, None, None]:
        """Read from here to the end; the last one has no content.

        Raises SourceLost when reading fails.
        """
        packets = cast(
            "Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream)
        )
        try:
            while (packet := self._next(packets)) is not None:
                self._note(packet)
                # Neither may outlive the device here, see VideoInput.close.
                coded = [CodedPicture(packet)]
                del packet
                yield coded.pop()
        finally:
            packets.close()  # frees FFmpeg's packet now, not at garbage collection

    def _note(self, packet: "Packet[VideoStream]") -> None:
        self.count += packet.size > 0
        if not packet.is_keyframe:
            return
        at = (packet.pts or 0) * compat.number(packet.time_base)
        if self._last_key is not None:
            self.key_interval = max(self.key_interval, at - self._last_key)
        self._last_key = at

    def _next(
        self, packets: "Generator[Packet[VideoStream], None, None]"
    ) -> "Packet[VideoStream] | None":
        waited_before = _waited()
        try:
            return next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            raise read_failure(error, self._name) from None
        finally:
            self.waited += _waited() - waited_before


def _waited() -> float:
    """Return the seconds in which this thread did not work; only differences mean anything."""
    return time.monotonic() - time.thread_time()
