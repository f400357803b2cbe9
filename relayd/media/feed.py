"""What FFmpeg can read in place of a URL."""

from typing import Protocol

from relayd.errors import SourceError


class ByteFeed(Protocol):
    """A file-like object that FFmpeg reads in place of a URL."""

    name: str
    """Its safe name."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes as soon as there are some; none at the end or a failure."""

    @property
    def fault(self) -> SourceError | None:
        """Why there are no more bytes; None at a plain end."""

    def close(self) -> None:
        """Release what it reads from; a second call does nothing."""
