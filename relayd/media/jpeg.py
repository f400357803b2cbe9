"""Whether a JPEG picture is whole: of a half one FFmpeg shows the rest in grey, without a word."""

from typing import Final

JPEG_START: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"
_MOST_PADDING: Final = 4096
"""Bytes that may follow the end: some cameras append zeros."""


def lacks_end(picture: bytes | bytearray | memoryview) -> bool:
    """Whether it is a JPEG picture without its end.

    It was cut off, or its camera writes none: what comes after it tells.
    """
    is_jpeg = bytes(picture[: len(JPEG_START)]) == JPEG_START
    return is_jpeg and JPEG_END not in bytes(picture[-_MOST_PADDING:])
