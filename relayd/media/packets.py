"""Reads the packets of one video stream, and takes down what they show of it.

The sound beside it is decoded on the way.
"""

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, cast

import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from relayd.errors import SourceLost
from relayd.media import compat
from relayd.media.jpeg import lacks_end
from relayd.media.look import size_of
from relayd.media.picture import CodedPicture
from relayd.media.refusals import read_failure
from relayd.media.sound import SoundReader

if TYPE_CHECKING:
    from av.packet import Packet

_JPEG_STREAMS: Final = {"mjpeg", "mpjpeg", "jpeg_pipe", "image2pipe"}
"""Demuxers that hand over what they have of a JPEG picture when reading breaks off in it."""


class PacketReader:
    """Reads an open container; what it took down lasts beyond `close`."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        name: str,
        *,
        sound: SoundReader | None = None,
    ) -> None:
        """`name` is the source in errors; `sound` gets the packets of its own stream."""
        self._container, self._stream, self._name = container, stream, name
        self._sound = sound
        self.waited = 0.0
        """Seconds spent so far in waiting for data, not in decoding it."""
        self.count = 0
        """Packets read so far, decodable or not."""
        self.key_interval = 0.0
        """s: the longest stretch between two key frames so far, both by their arrival and by their
        time stamps: one is longer after a pause, the other where the stamps jump."""
        self._last_key: tuple[float, float | None] | None = None

    @property
    def has_key(self) -> bool:
        """Whether there was a packet at which decoding can start."""
        return self._last_key is not None

    def close(self) -> None:
        """Drop container and stream, which their owner closes."""
        del self._container, self._stream

    def packets(self) -> Generator[CodedPicture, None, None]:
        """Read from here to the end; the last one has no content.

        Raises SourceLost when reading fails.
        """
        packets = self._demuxed()
        # Not to outlive the device here, see VideoInput.close.
        coded: list[CodedPicture] = []
        try:
            while (packet := self._next(packets)) is not None:
                self._note(packet)
                self._require_whole(packet)
                coded.append(CodedPicture(packet))
                may_be_cut = self._may_be_cut(packet)
                del packet
                while len(coded) > may_be_cut:
                    yield coded.pop(0)
        finally:
            coded.clear()
            packets.close()  # frees FFmpeg's packet now, not at garbage collection

    def _demuxed(self) -> "Generator[Packet[VideoStream], None, None]":
        """Read the packets of the pictures; those of the sound are handed on."""
        sound = self._sound
        if sound is None:
            return cast(
                "Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream)
            )
        return self._separated(sound)

    def _separated(self, sound: SoundReader) -> "Generator[Packet[VideoStream], None, None]":
        packets = cast(
            "Generator[Packet[VideoStream | AudioStream], None, None]",
            self._container.demux([self._stream, sound.stream]),
        )
        try:
            for packet in packets:
                if packet.stream_index == sound.index:
                    sound.read(cast("Packet[AudioStream]", packet))
                else:
                    yield cast("Packet[VideoStream]", packet)
                del packet  # not to outlive the device, see VideoInput.close
        finally:
            packets.close()

    def _require_whole(self, packet: "Packet[VideoStream]") -> None:
        """Raise SourceLost where reading a picture file broke off: its demuxer does not tell."""
        if self._container.format.name == "image2" and 0 < packet.size < size_of(self._container):
            raise SourceLost(f"{self._name}: reading broke off within the picture")

    def _may_be_cut(self, packet: "Packet[VideoStream]") -> bool:
        """Whether only the next packet shows that reading did not break off in this one.

        A device delivers its pictures whole, and some devices leave out their ends.
        """
        is_read = (
            self._stream.codec_context.name == "mjpeg"
            and self._container.format.name in _JPEG_STREAMS
        )
        return is_read and packet.size > 0 and lacks_end(memoryview(packet))

    def _note(self, packet: "Packet[VideoStream]") -> None:
        self.count += packet.size > 0
        if not packet.is_keyframe:
            return
        now = time.monotonic()
        stamp = None if packet.pts is None else packet.pts * compat.number(packet.time_base)
        if self._last_key is not None:
            arrived, before = self._last_key
            interval = now - arrived
            if stamp is not None and before is not None:
                interval = min(interval, stamp - before)
            self.key_interval = max(self.key_interval, interval)
        self._last_key = now, stamp

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
