"""Credentials for the service: a key in a header, or an id and a secret that get a token."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from relayd.errors import CredentialsRefused, ServerFault
from relayd.logs import conceal

_FINGERPRINT_DIGITS = 12
"""Hex digits: enough to tell one user's keys apart, too few for anything else."""
_RENEW_EARLY = 60.0
"""s before its end at which a token counts as expired: longer than any one call takes."""
_EARLIEST_DATE = 1e9
"""Above this, `expire` is a date (s since 1970), not a duration of 30 years."""
_EARLIEST_DATE_MS = 1e12
"""Above this, it is a date in ms."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, sent as `x-api-key`. Raises CredentialsRefused when it cannot be sent in a header."""

    key: str = field(repr=False)

    def __post_init__(self) -> None:
        conceal(self.key)
        _check_header(self.key, "[akool] api_key")

    @property
    def fingerprint(self) -> str:
        """Identifies the key without revealing it."""
        return _fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client id and secret: getToken returns a token for them, sent as `Authorization`."""

    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        conceal(self.client_secret)
        if not self.client_id or not self.client_secret:
            raise CredentialsRefused(
                "[akool] client_id or client_secret is empty", hint="set both, or api_key"
            )

    @property
    def fingerprint(self) -> str:
        """Identifies the account; the id alone is enough."""
        return _fingerprint(self.client_id)


Credentials = ApiKey | ClientSecret


def _fingerprint(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def _check_header(value: str, name: str) -> None:
    if not value or not (value.isascii() and value.isprintable()) or " " in value:
        raise CredentialsRefused(
            f"{name} is empty or holds characters that no key has", hint="copy it again"
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and when to renew it."""

    text: str = field(repr=False)
    renew_at: float
    """Wall time, s since 1970; infinite if the answer had no expiry."""

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries it."""
        return {"authorization": f"Bearer {self.text}"}

    @classmethod
    def read(cls, body: Mapping[str, object], wall: Callable[[], float] = time.time) -> "Token":
        """Read a getToken answer: token and expire in `data`, or at the top level.

        `expire` is read as a duration in s or as a date in s or ms. Raises ServerFault when there
        is no token, or one that cannot be sent in a header.
        """
        data = body.get("data")
        holders = [holder for holder in (data, body) if isinstance(holder, Mapping)]
        text = next((holder["token"] for holder in holders if holder.get("token")), None)
        if not isinstance(text, str):
            raise ServerFault("getToken: the answer has no token")
        conceal(text)
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise ServerFault("getToken: the answer's token is unreadable")
        expire = next((holder["expire"] for holder in holders if "expire" in holder), None)
        return cls(text, _end(expire, wall()) - _RENEW_EARLY)


def _end(expire: object, now: float) -> float:
    try:
        seconds = float(str(expire))
    except ValueError:
        return float("inf")
    if not seconds > 0:  # also false for nan
        return float("inf")
    if seconds > _EARLIEST_DATE_MS:
        return seconds / 1000
    return seconds if seconds > _EARLIEST_DATE else now + seconds
