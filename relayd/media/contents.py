"""What the first bytes of a file or answer are, where FFmpeg says only that they are invalid.

Pure functions over bytes: other modules read them.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

START: Final = 64 * 1024
"""Bytes of a file or answer that are looked at."""
LARGEST_INDEX: Final = 4 * 1024 * 1024
"""Bytes of an MP4's index (moov) that are looked at: the track headers come first."""

_MAGICS: Final = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
    (b"SQLite format 3", "a database"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"{\\rtf", "an RTF document"),
)
_XML_ROOTS: Final = ((b"<mpd", "a DASH manifest"), (b"<svg", "an SVG drawing"))
_TYPES: Final = {
    "text/html": "a web page",
    "application/xhtml+xml": "a web page",
    "application/json": "JSON text",
    "application/dash+xml": "a DASH manifest",
    "image/svg+xml": "an SVG drawing",
    "application/pdf": "a PDF document",
    "text/plain": "plain text",
    "text/xml": "XML text",
    "application/xml": "XML text",
}
WEB_PAGE: Final = "a web page"
DASH: Final = "a DASH manifest"
PLAYLIST: Final = "an HLS playlist"

_STILLS: Final = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"jpeg"}
"""The brands of still pictures."""
_BOX_HEAD: Final = 8
_LONG_BOX_HEAD: Final = 16
"""Bytes before a box's content: a length of 32 bits, a name, then maybe a length of 64."""
_MOST_BOXES: Final = 10_000
"""Boxes at the top that are looked at: a file of empty ones would keep us for hours."""
_TEXT: Final = re.compile(rb"[\t\r\n\x20-\x7e\x80-\xff]*")
_MATROSKA: Final = b"\x1aE\xdf\xa3"
_ENCRYPTION: Final = re.compile(rb"\x6d\x80.{1,60}?\x50\x35", re.DOTALL)
"""Matroska's elements ContentEncodings and, within it, ContentEncryption."""
_MATROSKA_CODEC: Final = re.compile(rb"V_[A-Z0-9/_]{2,30}")


def kind_of(start: bytes, content_type: str = "") -> str:
    """Return what something is that is no video, as "a web page"; empty where that is unknown.

    What the bytes show counts more than the type that a server names.
    """
    named = _TYPES.get(content_type.partition(";")[0].strip().lower(), "")
    return _by_magic(start) or _by_markup(start) or named or _by_bytes(start)


def _by_magic(start: bytes) -> str:
    return next((what for magic, what in _MAGICS if start.startswith(magic)), "")


def _by_markup(start: bytes) -> str:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return WEB_PAGE
    if text.startswith(b"#extm3u"):
        return PLAYLIST
    if text.startswith(b"<"):
        return next((what for tag, what in _XML_ROOTS if tag in text), "XML text")
    return "JSON text" if text.startswith((b"{", b"[")) and _is_text(start) else ""


def _by_bytes(start: bytes) -> str:
    if start and not start.strip(b"\0"):
        return "nothing but zero bytes"
    return "plain text" if start and _is_text(start) else ""


def _is_text(start: bytes) -> bool:
    if not _TEXT.fullmatch(start):
        return False
    try:
        start[:-4].decode()  # the end may be cut in the middle of a character
    except UnicodeDecodeError:
        return False
    return True


def is_animated_webp(start: bytes) -> bool:
    """Whether this is a WebP file of several pictures."""
    has_flags = start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and len(start) > 20  # noqa: PLR2004 - offset in the format
    return has_flags and bool(start[20] & 2)


def playlist_encryption(start: bytes) -> str:
    """Return the method by which an HLS playlist is encrypted so that only its player can read it.

    Empty for AES-128 with a key to fetch, which FFmpeg does itself.
    """
    found = re.search(rb"METHOD=(SAMPLE-AES(?:-CTR|-CENC)?)\b", start)
    if found is None and b"com.apple.streamingkeydelivery" not in start:
        return ""
    return found[1].decode() if found else "FairPlay"


@dataclass(frozen=True, slots=True)
class Boxes:
    """The top of an MP4 file: where its index is, and whether it is whole."""

    index: bytes = b""
    """The content of moov, or its beginning; empty where it was not found."""
    is_index_last: bool = False
    """The index comes after the pictures, or is nowhere."""
    has_pictures: bool = False
    """There is something besides the index; unknown where the file was not read that far."""
    is_cut_off: bool = False
    """The file ends before its last box does."""
    is_still: bool = False
    """It is a HEIC or AVIF picture, which has no such index."""


def boxes_of(read: Callable[[int, int], bytes], size: int | None) -> Boxes:
    """Walk the top boxes of an MP4 (ISO/IEC 14496-12, 4.2).

    `read(offset, count)` returns fewer bytes where there are no more; `size` is the whole file's,
    None if unknown.
    """
    has_pictures, is_index_last, end, index = False, True, 0, b""
    for name, offset, length in _top_boxes(read):
        end = offset + length
        if name == b"moov":
            index = read(offset + _BOX_HEAD, min(length - _BOX_HEAD, LARGEST_INDEX))
            is_index_last = has_pictures
        has_pictures |= name in (b"mdat", b"moof")
        if index and has_pictures:
            break
    return Boxes(
        index,
        is_index_last=has_pictures and is_index_last,
        has_pictures=has_pictures,
        is_cut_off=not index and size is not None and end > size,
        is_still=read(_BOX_HEAD, 4) in _STILLS,
    )


def _top_boxes(read: Callable[[int, int], bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and length in bytes of each box whose head can be read."""
    offset = 0
    for _ in range(_MOST_BOXES):
        head = read(offset, _LONG_BOX_HEAD)
        if len(head) < _BOX_HEAD:
            return
        length, name = struct.unpack(">I4s", head[:_BOX_HEAD])
        if offset == 0 and name != b"ftyp":
            return
        if length == 1 and len(head) == _LONG_BOX_HEAD:
            length = int.from_bytes(head[_BOX_HEAD:], "big")
        yield name, offset, length
        if length < _BOX_HEAD:  # 0: up to the end of the file
            return
        offset += length


def mp4_codec(index: bytes) -> str:
    """Return the four letters of the first video's format in an MP4's index, such as `avs3`."""
    entries = _video_entries(index)
    return entries[0] if entries else ""


def is_encrypted_mp4(index: bytes) -> bool:
    """Whether an MP4's video is encrypted (common encryption, ISO/IEC 23001-7)."""
    return "encv" in _video_entries(index)


def is_encrypted_matroska(start: bytes) -> bool:
    """Whether a Matroska or WebM file says at its beginning that a track is encrypted."""
    return start.startswith(_MATROSKA) and _ENCRYPTION.search(start) is not None


def _video_entries(index: bytes) -> list[str]:
    """Return the formats of the sample descriptions that follow a video's header."""
    tracks = [track for track in index.split(b"trak")[1:] if b"vmhd" in track]
    found = [
        track[entry + 16 : entry + 20].decode("latin-1")
        for track in tracks
        if (entry := track.find(b"stsd")) >= 0
    ]
    return [name for name in found if name.isprintable() and name.strip()]


def matroska_codec(start: bytes) -> str:
    """Return the name of a Matroska file's video codec, such as `V_QUICKTIME`; empty if unknown."""
    if not start.startswith(_MATROSKA):
        return ""
    found = _MATROSKA_CODEC.search(start)
    return found[0].decode() if found else ""
