"""What is probably wrong with a text that was meant as a URL or path and is neither."""

import re
from collections.abc import Callable
from typing import Final

_SCHEMES: Final = "rtsps?|rtmps?|https?|srt|udp|rtp|tcp"
_HINTS: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (re.compile(r"\s|.*\s$", re.DOTALL).match, "remove the blank before or after it"),
    (re.compile(r"[\"'<]").match, "remove the quotes around it"),
    (
        re.compile(rf"(?:{_SCHEMES})(?:[:;]/{{0,2}}|//)", re.IGNORECASE).match,
        "after the protocol come a colon and two slashes, as in rtsp://",
    ),
    (re.compile(r"[A-Za-z]:\\|\\\\").match, "it is a Windows path: mount the folder, and name it"),
    (re.compile(r"\$\w|\$\{|%\w+%").match, "variables are not filled in: write the path out"),
    (
        re.compile(
            r"[^/\s]*@[\w.-]+|(?:\d{1,3}\.){3}\d{1,3}(?:[:/]|$)|[\w.-]+:\d{2,5}(?:/|$)"
        ).match,
        "to read from a server, put the protocol first, such as rtsp://",
    ),
)


def slip_in(text: str) -> str:
    """Return a hint at the mistake in a text without `://` in its place; empty if none is seen."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) or text.startswith(("/", "lavfi:", "file:")):
        return ""
    return next((hint for is_so, hint in _HINTS if is_so(text)), "")
