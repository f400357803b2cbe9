"""What a playlist may name, and what each server may learn: rules for addresses chosen by others.

FFmpeg has the former for itself (its list of allowed protocols), but not where relayd opens the
files. It has none of the latter: it sends a user's headers and cookies to whatever server a
playlist names.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

WEB: Final = frozenset({"http", "https"})
_LOCAL: Final = frozenset({"", "file"})
_ENCRYPTED: Final = re.compile(r"crypto[+:]")
"""What FFmpeg puts before the address of a segment that it decrypts."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):|(subfile),")
"""As FFmpeg reads it: of one protocol the options come first, after a comma."""
_CREDENTIALS: Final = re.compile(r"(?i)\s*(?:proxy-)?(?:authorization|cookie)\s*:")


def plain_url(url: str) -> str:
    """Return the address of a file without FFmpeg's mark that it is to be decrypted."""
    return _ENCRYPTED.sub("", url, count=1) if url.startswith("crypto") else url


def scheme_of(url: str) -> str:
    """Return the protocol by which FFmpeg would open an address; empty for a path."""
    found = _SCHEME.match(plain_url(url))
    return (found[1] or found[2]).lower() if found else ""


def is_from_web(url: str) -> bool:
    """Whether what is behind an address was written by somebody else than the user."""
    return scheme_of(url) not in _LOCAL


def may_be_opened(url: str, *, from_web: bool) -> bool:
    """Whether a playlist may name this address.

    One from the web must not lead to files and sockets of this machine.
    """
    return scheme_of(url) in WEB | {"data"} | (frozenset() if from_web else _LOCAL)


def joined(base: str, address: str) -> str:
    """Return an address as it is relative to `base`; empty for one that cannot be read."""
    try:
        return urljoin(base, address)
    except ValueError:  # brackets that are no IPv6 address
        return ""


def may_share(owner: str, url: str) -> bool:
    """Whether credentials for the server of `owner` may be sent to that of `url`.

    To the same host, but not without TLS what was meant to go through it. Those that a user gives
    for a playlist on this machine are meant for whatever it names.
    """
    if not is_from_web(owner):
        return True
    try:
        ours, theirs = urlsplit(owner), urlsplit(plain_url(url))
        is_same_host = ours.hostname == theirs.hostname
    except ValueError:
        return False
    return is_same_host and (ours.scheme.lower() != "https" or theirs.scheme.lower() == "https")


def options_for(url: str, options: Mapping[str, str], owner: str) -> dict[str, str]:
    """Return the options to open `url` with: without what is secret between us and `owner`.

    Kept are a cookie that names its domain, which FFmpeg compares, and headers that carry no login.
    """
    own = dict(options)
    if may_share(owner, url):
        return own
    if cookies := own.pop("cookies", ""):
        own["cookies"] = "\n".join(
            line for line in cookies.splitlines() if "domain=" in line.lower()
        )
    if headers := own.pop("headers", ""):
        kept = [line for line in headers.splitlines() if not _CREDENTIALS.match(line)]
        own["headers"] = "".join(f"{line}\r\n" for line in kept)
    return {name: text for name, text in own.items() if text or name not in ("cookies", "headers")}
