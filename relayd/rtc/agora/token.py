"""Reads an Agora token: project, channel, user and expiry.

A token of generation 007 is "007" and base64 of a zlib stream: signature and app id as strings
behind a 16-bit length, then issue time, lifetime and salt (32 bits each), then the number of
services, each with its kind, its privileges (number: lifetime in s) and, for RTC, channel and user;
all little-endian (AgoraIO/Tools, DynamicKey/AgoraDynamicKey, AccessToken2). It is signed, not
encrypted, so its bearer can read it; only the server can verify it.
"""

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass

_GENERATION = "007"
_LARGEST = 4096
"""Bytes that a token may unpack to; real ones have about 150."""
_RTC_SERVICE = 1
_HEADER = struct.Struct("<IIIH")
_PRIVILEGE = struct.Struct("<HI")
_SHORT = struct.Struct("<H")


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """The readable content of a token."""

    app_id: str
    lifetime: float
    """s from its issue to its end; the times are the issuer's clock, so only the span is useful."""
    channel: str = ""
    user_id: str = ""
    """Empty if it is valid for any user."""


def read_token(token: str) -> TokenFacts | None:
    """Read a token; None if it is of another generation or unreadable."""
    if not token.startswith(_GENERATION):
        return None
    try:
        packed = base64.b64decode(token.removeprefix(_GENERATION), validate=True)
        unpacker = zlib.decompressobj()
        facts = _read(_Reader(unpacker.decompress(packed, _LARGEST)))
    except (binascii.Error, zlib.error, struct.error, UnicodeDecodeError):
        return None
    return None if unpacker.unconsumed_tail or not facts.app_id else facts


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def values(self, layout: struct.Struct) -> tuple[int, ...]:
        found = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return found

    def raw(self) -> bytes:
        (length,) = self.values(_SHORT)
        (found,) = struct.unpack_from(f"{length}s", self._data, self._at)
        self._at += length
        return bytes(found)

    def text(self) -> str:
        return self.raw().decode("ascii")


def _read(reader: _Reader) -> TokenFacts:
    reader.raw()  # the signature
    app_id = reader.text()
    _issued_at, lifetime, _salt, _services = reader.values(_HEADER)
    (service,) = reader.values(_SHORT)
    (count,) = reader.values(_SHORT)
    lifetimes = [reader.values(_PRIVILEGE)[1] for _ in range(count)]
    lifetime = min([lifetime, *filter(None, lifetimes)])  # 0: as the token
    if service != _RTC_SERVICE:  # services are ordered by number, RTC is the first
        return TokenFacts(app_id, lifetime)
    return TokenFacts(app_id, lifetime, channel=reader.text(), user_id=reader.text())
