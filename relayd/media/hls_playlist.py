"""HLS playlists (RFC 8216): the choice of a variant, and what a live playlist tells.

Pure functions on text; `relayd.media.hls` fetches the files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relayd.media.frames import Geometry
from relayd.media.origins import joined

_STREAM: Final = "#EXT-X-STREAM-INF:"
_MEDIA: Final = "#EXT-X-MEDIA:"
_FRAMES_ONLY: Final = "#EXT-X-I-FRAME-STREAM-INF:"
_SEQUENCE: Final = "#EXT-X-MEDIA-SEQUENCE:"
_DURATION: Final = "#EXTINF:"
_RANGE: Final = "#EXT-X-BYTERANGE:"
_TARGET: Final = "#EXT-X-TARGETDURATION:"
_PART: Final = "#EXT-X-PART:"
_PART_LENGTH: Final = "#EXT-X-PART-INF:"
_END: Final = "#EXT-X-ENDLIST"

_ATTRIBUTE: Final = re.compile(r'(?<![A-Z0-9-])([A-Z0-9-]+)=("[^"]*"|[^,]*)')
"""Looked for at the beginning of a name alone: in a name of a megabyte at each letter would take
hours."""
_URI: Final = re.compile(r'\bURI="([^"]*)"')
_VIDEO_CODECS: Final = ("avc", "hvc", "hev", "av01", "vp0", "dvh", "mp4v", "vvc")
LARGEST_ENLARGEMENT: Final = 2.0
"""A variant of up to twice the relay's size is chosen: more pixels would only cost decoding."""
SHORTEST_TARGET: Final = 1
"""s: of the target duration FFmpeg waits half, when a playlist has nothing new to it."""
LONGEST_SEGMENT: Final = 60.0
"""s that a segment may last: for so long a live source may be silent without being lost."""
SHORTEST_WAIT: Final = "0.001"
"""s, the shortest duration that FFmpeg accepts. It waits for the duration of the last segment
before it asks for the playlist again."""


def is_playlist(text: str) -> bool:
    """Whether it is an HLS playlist, not just any text or list of files."""
    return text.lstrip("\ufeff \r\n\t").startswith("#EXTM3U") and "#EXT-X-" in text


def is_master(text: str) -> bool:
    """Whether it lists variants, not segments."""
    return _STREAM in text


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of a master playlist."""

    line: str
    """Its EXT-X-STREAM-INF line."""
    uri: str
    width: int
    height: int
    """Pixels; both 0 if the playlist does not tell."""
    bandwidth: int
    """Bits per second; 0 if not told."""
    codecs: str
    is_sdr: bool

    @property
    def has_video(self) -> bool:
        """Whether it is not known to be sound alone."""
        names = self.codecs.lower()
        return self.width > 0 or not names or any(name in names for name in _VIDEO_CODECS)

    @property
    def is_h264(self) -> bool:
        """Whether it may be H.264, which costs least to decode."""
        return not self.codecs or "avc" in self.codecs.lower()

    def enlargement(self, target: Geometry) -> float:
        """Return how many times larger than the target it is, in its smaller dimension."""
        return min(self.width / target.width, self.height / target.height)


def variants(text: str) -> list[Variant]:
    """Return the variants of a master playlist, in its order."""
    found: list[Variant] = []
    line = ""
    for row in (row.strip() for row in text.splitlines()):
        if row.startswith(_STREAM):
            line = row
        elif row and not row.startswith("#") and line:
            found.append(_variant(line, row))
            line = ""
    return found


def _attributes(line: str) -> dict[str, str]:
    return {name: text.strip('"') for name, text in _ATTRIBUTE.findall(line)}


def _variant(line: str, uri: str) -> Variant:
    attributes = _attributes(line)
    size = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", attributes.get("RESOLUTION", "").lower())
    width, height = (int(size[1]), int(size[2])) if size else (0, 0)
    return Variant(
        line,
        uri,
        width,
        height,
        int(_number(attributes.get("BANDWIDTH", ""))),
        attributes.get("CODECS", ""),
        attributes.get("VIDEO-RANGE", "SDR") == "SDR",
    )


def choose_variant(offered: Sequence[Variant], target: Geometry) -> Variant | None:
    """Choose by size: the smallest of at least the target's size and up to twice as large.

    If there is none, the largest of those below, else the smallest of those above. Of the same
    size, normal range before HDR, H.264 before others, then the highest bit rate. Without sizes
    the highest bit rate counts. None if none has video.
    """
    with_video = [variant for variant in offered if variant.has_video]
    if not with_video:
        return None
    sized = [variant for variant in with_video if variant.width and variant.height]
    if not sized:
        return max(with_video, key=_quality)
    fitting = [
        variant for variant in sized if 1 <= variant.enlargement(target) <= LARGEST_ENLARGEMENT
    ]
    below = [variant for variant in sized if variant.enlargement(target) < 1]
    if fitting or not below:
        pixels = min(variant.width * variant.height for variant in fitting or sized)
    else:
        pixels = max(variant.width * variant.height for variant in below)
    same = [
        variant for variant in fitting or below or sized if variant.width * variant.height == pixels
    ]
    return max(same, key=_quality)


def _quality(variant: Variant) -> tuple[bool, bool, int]:
    return variant.is_sdr, variant.is_h264, variant.bandwidth


def choose_sound(text: str, chosen: Variant) -> str:
    """Return the address of the sound beside a variant; empty where its segments have it.

    Of the variant's group: what is the default there, else what players may choose by themselves,
    else the first.
    """
    group = _attributes(chosen.line).get("AUDIO", "")
    rows = [row.strip() for row in text.splitlines() if row.strip().startswith(_MEDIA)]
    offered = [
        one
        for one in map(_attributes, rows)
        if one.get("TYPE") == "AUDIO" and group and one.get("GROUP-ID") == group
    ]
    best = max(
        offered,
        key=lambda one: (one.get("DEFAULT") == "YES", one.get("AUTOSELECT") == "YES"),
        default={},
    )
    return best.get("URI", "")


def master_of(text: str, chosen: Variant, url: str) -> str:
    """Return the master playlist found at `url` with one variant alone, and no other renditions."""
    dropped = {variant.uri for variant in variants(text)}
    others = (_STREAM, _MEDIA, _FRAMES_ONLY)
    kept = [
        row
        for row in text.splitlines()
        if not row.strip().startswith(others) and row.strip() not in dropped
    ]
    return with_whole_addresses("\n".join([*kept, chosen.line, chosen.uri, ""]), url)


def with_whole_addresses(text: str, url: str) -> str:
    """Return a playlist with each address as it is relative to `url`.

    FFmpeg only knows the address that it asked for, not where a redirection has led.
    """
    return "\n".join(_whole(row, url) for row in text.splitlines()) + "\n"


def _whole(row: str, url: str) -> str:
    if row.startswith("#"):
        return _URI.sub(lambda found: f'URI="{joined(url, found[1])}"', row)
    return joined(url, row.strip()) if row.strip() else row


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a media playlist."""

    url: str
    start: int
    """Its first byte within the file, for segments that share one."""
    duration: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """What a media playlist lists."""

    segments: tuple[Segment, ...]
    sequence: int
    """The number of the first segment."""
    target_duration: float
    """Seconds that no segment is longer than; 0.0 if not told."""
    has_ended: bool
    """Whether no more segments will be added."""


def parse_media(text: str, url: str) -> MediaPlaylist:
    """Parse the media playlist that was fetched from `url`. Unknown lines are ignored."""
    segments: list[Segment] = []
    sequence, target, duration, start, next_start = 0, 0.0, 0.0, 0, 0
    for row in (row.strip() for row in text.splitlines()):
        if row.startswith(_SEQUENCE):
            sequence = int(_number(row.removeprefix(_SEQUENCE)))
        elif row.startswith(_TARGET):
            target = _seconds(row.removeprefix(_TARGET))
        elif row.startswith(_DURATION):
            duration = _seconds(row.removeprefix(_DURATION).partition(",")[0])
        elif row.startswith(_RANGE):
            length, _, at = row.removeprefix(_RANGE).partition("@")
            start = int(_number(at)) if at else next_start
            next_start = start + int(_number(length))
        elif row and not row.startswith("#"):
            segments.append(Segment(joined(url, row), start, duration))
            start = 0
    return MediaPlaylist(tuple(segments), sequence, target, _END in text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 <= number < 2**63 else 0.0


def _seconds(text: str) -> float:
    return min(_number(text), LONGEST_SEGMENT)


def part_length(text: str) -> float:
    """Return the longest part of a low-latency playlist in seconds; 0.0 if it has no parts."""
    rows = [row for row in text.splitlines() if row.startswith(_PART_LENGTH)]
    return _seconds(_attributes(rows[-1]).get("PART-TARGET", "")) if rows else 0.0


def by_parts(text: str, *, joins: bool) -> str:
    """Return a low-latency playlist with the parts of its newest segments in their place.

    FFmpeg knows no parts: it would read a segment when it is complete. To one who `joins`, the
    list ends with the first part of a segment, where decoding can start; the next one has the rest.
    """
    rows: list[str] = []
    held: list[str] = []  # what describes a segment whose parts stand before it
    in_parts, first_part = False, 0
    for row in text.splitlines():
        if row.startswith(_PART):
            if not in_parts:
                first_part = len(rows) + len(_part(row))
            rows += _part(row)
            in_parts = True
        elif row.startswith((_DURATION, _RANGE)):
            held.append(row)
        elif row.startswith("#") or not row.strip():
            rows.append(row)
        else:
            rows += [] if in_parts else [*held, row]
            held, in_parts = [], False
    return "\n".join([*(rows[:first_part] if joins and first_part else rows), ""])


def _part(row: str) -> list[str]:
    """Return a part as a segment; nothing for one that is missing at the server."""
    part = _attributes(row)
    if part.get("GAP") == "YES" or "URI" not in part:
        return []
    length = [f"{_RANGE}{part['BYTERANGE']}"] if "BYTERANGE" in part else []
    return [f"{_DURATION}{part.get('DURATION', '0')},", *length, part["URI"]]


def for_reading(text: str, sequence: int) -> str:
    """Return a live playlist so that FFmpeg never waits by itself and counts from `sequence`.

    Whoever hands it over does the waiting. A number of its own makes a server that starts counting
    again look like one that goes on.
    """
    rows: list[str] = []
    for row in text.splitlines():
        if row.startswith(_DURATION):
            rows.append(f"{_DURATION}{SHORTEST_WAIT},")
        elif row.startswith(_TARGET):
            rows.append(f"{_TARGET}{SHORTEST_TARGET}")
        elif not row.startswith((_SEQUENCE, "#EXTM3U")):
            rows.append(row)
    return "\n".join(["#EXTM3U", f"{_SEQUENCE}{sequence}", *rows, ""])
