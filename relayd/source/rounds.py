"""The rounds of a looped recording: each from its first picture to its last.

A round begins by seeking, where that is known to lead to the first picture, else by opening the
recording again. A file that was replaced meanwhile is opened again in any case.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from relayd import logs
from relayd.errors import SourceError, SourceLost
from relayd.logs import LogEvent
from relayd.media.decode import VideoInput
from relayd.media.picture import Picture
from relayd.source.playing import Playback, timing_of
from relayd.source.schedule import Timing

MARGINS: Final = (10.0, 0.0)
"""s before the start to seek to. MPEG-TS and MPEG-PS land behind the first key frame without a
margin, since they search by the stamps of decoding; AVI, FLV and GIF refuse one."""
HELD: Final = 10.0
"""s for which the last picture stays while the recording cannot be opened again; after that the
source counts as lost: a picture that stands for ever would look like a live one."""
REOPEN_EVERY: Final = 0.5
"""s between attempts meanwhile: a file that is being copied is whole in a moment."""

_log = logs.get("source")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells whether a path still leads to the same content."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: str | None) -> "FileIdentity | None":
        """Return that of the file at a path; None if there is none."""
        try:
            found = os.stat(path) if path is not None else None  # noqa: PTH116  # may hold a NUL
        except (OSError, ValueError):
            return None
        return found and cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Rounds:
    """Begins the rounds of one recording, in the thread that decodes it."""

    def __init__(self, playback: Playback, path: str | None) -> None:
        """`path` is that of a local file, or None."""
        self._playback, self._path = playback, path
        self._identity = FileIdentity.of(path)
        self._margins = list(MARGINS)
        self._first_mark: tuple[int | None, int] | None = None
        self._warned_of = ""

    @property
    def timing(self) -> Timing:
        """What the container says about its stamps."""
        return timing_of(self._playback.source)

    @property
    def is_replaced(self) -> bool:
        """Whether the path leads to other content than is open, or to none."""
        return self._path is not None and FileIdentity.of(self._path) != self._identity

    def first(self) -> Iterator[Picture]:
        """Return the pictures of the first round."""
        pictures, self._first_mark = _begin(self._playback.source)
        return pictures

    def next(self) -> Iterator[Picture]:
        """Return the pictures of the next round.

        Raises SourceError when the recording could not be opened again for HELD seconds.
        """
        if self.is_replaced:
            return self._replaced()
        return self._rewound() or self._reopened()

    def _rewound(self) -> Iterator[Picture] | None:
        """Seek to the first picture; None where that is not possible."""
        while self._margins:
            if (pictures := self._sought(self._margins[0])) is not None:
                return pictures
            del self._margins[0]
        return None

    def _sought(self, margin: float) -> Iterator[Picture] | None:
        source = self._playback.source
        try:
            if not source.rewind(margin):
                return None
            pictures, mark = _begin(source)
        except SourceError:
            return None
        return pictures if mark == self._first_mark else None

    def _replaced(self) -> Iterator[Picture]:
        """Read the file again, or go on with the old one as long as that can be read."""
        try:
            pictures = self._open_again()
        except SourceError as fault:
            self._warn(fault)
            return self._rewound() or self._reopened()
        _log.info(LogEvent.SOURCE_FILE_CHANGED)
        return pictures

    def _reopened(self) -> Iterator[Picture]:
        """Open the recording again, with patience."""
        clock = self._playback.clock
        deadline = clock.now() + HELD
        self._playback.close()  # some servers allow one connection
        while True:
            try:
                return self._open_again()
            except SourceError as fault:
                now = clock.now()
                if now >= deadline or not self._playback.wait_until(now + REOPEN_EVERY):
                    raise
                self._warn(fault)

    def _open_again(self) -> Iterator[Picture]:
        identity = FileIdentity.of(self._path)  # of the content that is opened, or older
        source = self._playback.open_beside()
        try:
            pictures, mark = _begin(source)
        except BaseException:
            source.close()
            raise
        self._playback.adopt(source)
        if identity != self._identity:
            self._margins = list(MARGINS)
        self._identity, self._first_mark, self._warned_of = identity, mark, ""
        return pictures

    def _warn(self, fault: SourceError) -> None:
        """Log why the recording cannot be opened again, once for each reason."""
        if fault.message != self._warned_of:
            self._warned_of = fault.message
            _log.warning(LogEvent.SOURCE_NOT_REOPENED, reason=fault.message)


def _begin(source: VideoInput) -> tuple[Iterator[Picture], tuple[int | None, int]]:
    """Return the pictures from here on, and the mark of the first one.

    Raises SourceError when there is none.
    """
    pictures = source.pictures()
    first = next(pictures, None)
    if first is None:
        raise SourceLost("the recording contains no picture")
    return chain([first], pictures), first.mark()
