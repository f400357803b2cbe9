"""Reads the sound of an HLS stream that has a playlist of its own, beside that of the pictures.

It has a thread and a container of its own, so that whatever happens to it holds up no picture.
Its stamps are on the clock of the pictures (RFC 8216, 3.4).
"""

from collections.abc import Mapping
from contextlib import closing, suppress
from threading import Condition, Event, Thread
from typing import Final

import av.error
from av.container import InputContainer

from relayd.errors import SourceError, Unavailable
from relayd.media import compat, hls
from relayd.media.hls import HlsFiles
from relayd.media.interrupt import UNLIMITED, ended_by
from relayd.media.sound import Hearing, SoundFormat, SoundPiece, SoundReader, is_decodable
from relayd.process.limits import start_thread

RETRY: Final = 2.0
"""s after which it is opened again, when it failed or ended."""
OPEN_LIMIT: Final = 5.0
"""s that FFmpeg may take to find out what it is."""
CLOSE_LIMIT: Final = 1.0
"""s to wait for its thread, which then ends by itself: its server may hang."""
_WAKE: Final = 0.1
"""s between looks whether there is room for more."""
_FAULTS: Final = (av.error.FFmpegError, OSError, ValueError, MemoryError, SourceError)


class HlsSound:
    """The sound of one open HLS stream; used by the thread that reads the pictures."""

    def __init__(self, files: HlsFiles, options: Mapping[str, str], closed: Event) -> None:
        """`files` hands over the sound's playlist, and stops waiting when `closed` is set."""
        self._files, self._options, self._closed = files, dict(options), closed
        self._changed = Condition()
        self._hearing: Hearing | None = None
        self._round = 0
        self._format = SoundFormat("unknown", 0, 0)
        self._thread = Thread(target=self._run, name="relayd-hls-sound", daemon=True)

    @property
    def format(self) -> SoundFormat:
        """What is known of it by now."""
        return self._format

    def hear(self, hearing: Hearing) -> None:
        """Hand sound on to `hearing` from now on, in a thread of its own, until `keep`."""
        with self._changed:
            self._hearing = hearing
            self._changed.notify_all()
        if self._thread.ident is None:
            with suppress(Unavailable):  # then there are pictures without sound
                start_thread(self._thread)

    def keep(self) -> None:
        """Begin again at the start, and wait for `hear`."""
        with self._changed:
            self._hearing = None
            self._round += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; returns within CLOSE_LIMIT even if that hangs."""
        with self._changed:
            self._closed.set()
            self._hearing = None
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_LIMIT)

    def _run(self) -> None:
        with ended_by(self._closed):
            while (number := self._next_round()) is not None:
                with suppress(*_FAULTS):
                    self._read(number)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_over(number), RETRY)

    def _next_round(self) -> int | None:
        """Wait until somebody listens; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._hearing is not None or self._closed.is_set())
            return None if self._closed.is_set() else self._round

    def _is_over(self, number: int) -> bool:
        return self._closed.is_set() or self._round != number

    def _read(self, number: int) -> None:
        """Read until the end, or until it is to begin again."""
        if not self._files.fetch():
            return
        with closing(self._open()) as container:
            stream = next((one for one in container.streams.audio if is_decodable(one)), None)
            if stream is None:
                return
            reader = SoundReader(stream)
            reader.hear(_Pass(self, number))
            try:
                for packet in container.demux(stream):
                    if not self._has_room(number):
                        return
                    reader.read(packet)
                    self._format = reader.format
                    del packet
            finally:
                del stream
                reader.close()

    def _open(self) -> InputContainer:
        return compat.open_input(
            self._files.start,
            format=hls.DEMUXER,
            options=hls.OPTIONS | self._options,
            timeout=(OPEN_LIMIT, UNLIMITED),
            io_open=self._files,
        )

    def _has_room(self, number: int) -> bool:
        """Wait until more is wanted; False when it is to begin again, or to end."""
        with self._changed:
            while not self._is_over(number):
                hearing = self._hearing
                if hearing is None or not hearing.is_full:
                    return hearing is not None
                self._changed.wait(_WAKE)
        return False

    def pass_on(self, piece: SoundPiece, number: int) -> None:
        """Hand on a piece, unless it is of a round that is over."""
        with self._changed:
            if self._hearing is not None and not self._is_over(number):
                self._hearing.put(piece)


class _Pass:
    """Where the sound of one round goes."""

    is_full = False
    """Reading waits instead."""

    def __init__(self, sound: HlsSound, number: int) -> None:
        self._sound, self._number = sound, number

    def put(self, piece: SoundPiece) -> None:
        self._sound.pass_on(piece, self._number)
