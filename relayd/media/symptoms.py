"""What was asked of FFmpeg, and what it reported where several causes are possible."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from relayd.errors import SourceError

_LONGEST_NAME: Final = 200
"""Characters of a source's name in a message."""


class Symptom(StrEnum):
    """What FFmpeg reported where several causes are possible."""

    NOT_MEDIA = "not media"
    """Something was read, but it is no video."""
    BROKEN = "broken"
    """Connecting or reading failed."""
    INVALID = "invalid"
    """An argument was refused: a part of the URL, or an option's value."""
    STATUS = "status"
    """The server refused, with a status that FFmpeg does not name."""
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    FOLDER = "folder"
    NO_DECODER = "no decoder"
    UNDECODABLE = "undecodable"
    """There is a video, but no picture came out of the decoder."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What FFmpeg was asked to open."""

    url: str = field(repr=False)
    """Complete, including any secrets; never shown."""
    name: str
    """As it may be shown."""
    options: Mapping[str, str] = field(repr=False)
    live: bool
    """Whether what cannot be read now may come later."""

    @property
    def scheme(self) -> str:
        """In lower case; empty for a path."""
        before, found, _ = self.url.partition("://")
        return before.lower() if found else ""

    @property
    def shown(self) -> str:
        """The name, shortened."""
        return self.name if len(self.name) <= _LONGEST_NAME else f"{self.name[:_LONGEST_NAME]}…"


def with_symptom(error: SourceError, symptom: Symptom) -> SourceError:
    """Return the error, marked as one that a look at the source may explain."""
    error.symptom = symptom
    return error
