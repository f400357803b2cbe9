"""Decodes the packets of one video stream."""

import os
from typing import Final

import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from relayd.media.picture import CodedPicture
from relayd.media.refusals import undecodable
from relayd.media.skipping import PacketSkipper, SkipLevel

CORRUPT_LIMIT: Final = 250
"""Packets in a row that cannot be decoded, about 10 s of video, until a stream is abandoned."""
FILE_THREADS: Final = 2
"""Decoding threads for files, where a frame or two of delay do not matter."""
MOST_THREADS: Final = 4
"""Decoding threads for large pictures, where there are as many processors."""
LARGE_PICTURE: Final = 2048 * 1152
"""Pixels from which on more threads are worth their memory. A live source has one for smaller
ones; the slices of a large one, if it has several, are decoded at the same time, without delay."""


def thread_count(pixels: int, processors: int, *, live: bool) -> int:
    """Return the number of threads to decode pictures of so many pixels."""
    if pixels < LARGE_PICTURE:
        return 1 if live else FILE_THREADS
    return max(1 if live else FILE_THREADS, min(MOST_THREADS, processors))


class Decoder:
    """A stream's decoder; used by one thread. Its counts last beyond `close`."""

    def __init__(self, stream: VideoStream, name: str) -> None:
        """`name` is the source in errors."""
        self._context, self._name = stream.codec_context, name
        self._skipper = PacketSkipper()
        self.corrupt = 0
        """Packets that could not be decoded so far."""
        self._corrupt_run = 0
        self.decoded = 0
        """Pictures that came out of it so far."""

    def prepare(self, *, live: bool) -> None:
        """Choose between no frame held back and several threads; before the first picture."""
        context = self._context
        context.thread_type = "SLICE" if live else "FRAME"
        pixels = context.width * context.height
        context.thread_count = thread_count(pixels, os.cpu_count() or 1, live=live)

    def close(self) -> None:
        """Drop the codec, whose threads end with the last reference to it."""
        del self._context

    def skip(self, level: SkipLevel) -> None:
        """Leave more or fewer pictures undecoded from the next packet on."""
        if level is not self._skipper.level:
            self._skipper.level = level
            # Pictures between keys do not reach the decoder at all.
            self._context.skip_frame = "NONREF" if level else "DEFAULT"

    def skips(self, coded: CodedPicture) -> bool:
        """Whether the next packet is not to be decoded.

        The empty packet at the end makes the decoder hand out the rest.
        """
        return coded.size > 0 and not self._skipper.wants(is_key=coded.is_key)

    def decode(self, coded: CodedPicture, *, before_key: bool) -> list[VideoFrame]:
        """Decode one packet. `before_key`: a live source was joined between two key frames.

        What cannot be decoded is counted in `corrupt`, unless it is of before such a key. Raises
        SourceUnusable when CORRUPT_LIMIT packets in a row could not be decoded.
        """
        try:
            frames = coded.packet.decode()
        except (av.error.FFmpegError, MemoryError):
            if before_key:
                return []  # not corrupt, only useless
            self.corrupt += 1
            self._corrupt_run += 1
            if self._corrupt_run >= CORRUPT_LIMIT:
                del coded.packet  # which the error's traceback would keep, see VideoInput.close
                raise undecodable(self._name, self._corrupt_run) from None
            return []
        if frames:
            self._corrupt_run = 0
        self.decoded += len(frames)
        return frames
