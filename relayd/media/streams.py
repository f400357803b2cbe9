"""Chooses the video stream of a container, as players do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relayd.errors import SourceUnusable

StreamWish = Literal["best"] | int
"""Which video stream a user wants: the best one, or the one of a number, from 0."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a container says about one of its video streams."""

    width: int
    height: int
    """In pixels; 0 while unknown."""
    frames: int = 0
    """As the container counts them; 0 where it does not."""
    is_default: bool = False
    is_cover: bool = False
    """A picture that belongs to a recording, such as an album's cover, not its video."""
    is_part: bool = False
    """A tile or layer that is no whole picture."""
    is_decodable: bool = True


def choose_stream(candidates: Sequence[Candidate], wish: StreamWish, name: str) -> int | None:
    """Return the index of the stream to show; None if none can be decoded.

    The best is the largest among those that the container calls its default, else among all;
    covers and parts are never chosen. Raises SourceUnusable when there is none of the wanted
    number; `name` is the source in its message.
    """
    shown = [number for number, one in enumerate(candidates) if not one.is_cover]
    if shown and wish != "best":
        if wish >= len(shown):
            raise SourceUnusable(
                f"{name} has no video stream {wish}, only {_count(len(shown))}",
                hint='set source.stream = "best", or a number from 0',
            )
        shown = [shown[wish]]
    usable = [number for number in shown if candidates[number].is_decodable]
    return max(usable, key=lambda number: _rank(candidates[number]), default=None)


def is_tiled(candidates: Sequence[Candidate]) -> bool:
    """Whether the container's main picture is spread over several streams, as tiles.

    FFmpeg marks the tiles of HEIF files (HEIC, AVIF) as parts, and what is the main item as the
    default. Beside the tiles there may be a preview.
    """
    parts = sum(one.is_part for one in candidates)
    return parts > 0 and not any(one.is_default and not one.is_part for one in candidates)


def _rank(one: Candidate) -> tuple[bool, bool, bool, int, int]:
    pixels = one.width * one.height
    return not one.is_part, pixels > 0, one.is_default, pixels, one.frames


def _count(streams: int) -> str:
    return f"{streams} (0 to {streams - 1})" if streams > 1 else f"{streams}"
