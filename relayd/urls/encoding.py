"""Whether a URL's password has characters that must be percent-encoded, and where they mislead."""

import re
from typing import Final

HINT: Final = "percent-encode special characters: @ as %40, # %23, / %2F, ? %3F, : %3A, % %25"
"""What to do; names no part of the URL."""
_PORT: Final = re.compile(r"\d{0,5}")
_HOST_AGAIN: Final = re.compile(
    r"(?:\d{1,3}(?:\.\d{1,3}){3}|localhost)(?:[:/]|$)|[\w-]+(?:\.[\w-]+)*[:/]"
)
"""A host as it stands after user and password: an address, or a name before a port or path."""


def lacks_encoding(url: str) -> bool:
    """Whether the host that FFmpeg sees in a URL is probably a part of its password.

    FFmpeg ends host and password at the first / ? or #. An @ after it is a sign that these
    belong to the password. A path may have one, too: ask only where the host was not reached.
    """
    rest = url.partition("://")[2]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in rest[len(authority) :]:
        return False
    place = authority.rpartition("@")[2]
    _, has_port, port = place.rpartition(":")
    if has_port and not place.startswith("[") and not _PORT.fullmatch(port):
        return True  # user:pass/word@host
    has_password = bool(has_port) or "@" in authority
    return has_password and _HOST_AGAIN.match(rest.rpartition("@")[2]) is not None


def has_login(url: str) -> bool:
    """Whether a URL gives a user name."""
    rest = url.partition("://")[2]
    return "@" in re.split("[/?#]", rest, maxsplit=1)[0]
