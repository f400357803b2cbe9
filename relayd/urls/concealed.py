"""The exact strings that must not be shown, and the replacement of each.

Two lists: secrets of the configuration are kept, and of temporary ones, such as a session's
tokens, the newest are kept. Both are bounded, so that a log line costs the same after weeks.
"""

import base64
import html
import json
from collections.abc import Iterator
from functools import lru_cache
from threading import Lock
from typing import Final
from urllib.parse import quote, quote_plus

HIDDEN: Final = "***"
MOST_KEPT: Final = 50
"""Temporary secrets that are kept, the newest ones: a session has a token and a few URLs."""
MOST_LASTING: Final = 500
"""Secrets of the configuration: one with fifty outputs has about two hundred, and forgetting one
may expose the account's key."""
SHORTEST: Final = 6
"""Characters; shorter strings would hide ordinary words."""


class Concealed:
    """A bounded store of secrets; any thread may use it."""

    def __init__(self, most: int = MOST_KEPT, most_lasting: int = MOST_LASTING) -> None:
        self._most, self._most_lasting = most, most_lasting
        self._lock = Lock()
        self._lasting: dict[str, str] = {}
        self._passing: dict[str, str] = {}
        self._longest_first: tuple[tuple[str, str], ...] = ()
        """A secret that is a prefix of another must not expose the rest of it."""

    def add(self, secret: str, shown: str = HIDDEN, *, lasting: bool = False) -> None:
        """Replace `secret` by `shown` from now on, in all its encodings; short ones are ignored.

        Unless it is `lasting`, it is forgotten once `most` others were added after it.
        """
        if len(secret) < SHORTEST or secret in shown:
            return
        with self._lock:
            is_lasting = lasting or secret in self._lasting
            kept = self._lasting if is_lasting else self._passing
            if kept.pop(secret, None) == shown:  # now the newest one
                kept[secret] = shown
                return
            kept[secret] = shown
            if len(kept) > (self._most_lasting if is_lasting else self._most):
                del kept[next(iter(kept))]
            known = {
                spelling: hidden
                for one, hidden in (self._passing | self._lasting).items()
                for spelling in _spellings(one)
            }
            self._longest_first = tuple(sorted(known.items(), key=lambda one: -len(one[0])))

    def replaced_in(self, text: str) -> str:
        """Return `text` with each known secret replaced."""
        for secret, shown in self._longest_first:  # a tuple: other threads add meanwhile
            if secret in text:
                text = text.replace(secret, shown)
        return text

    def __len__(self) -> int:
        """Count the secrets kept."""
        with self._lock:
            return len(self._passing | self._lasting)


@lru_cache(maxsize=4 * MOST_LASTING)
def _spellings(secret: str) -> frozenset[str]:
    """Return a secret as it is, and as encoded in URLs, JSON, HTML, headers and Python's errors."""
    return frozenset(one for one in _written(secret) if len(one) >= SHORTEST)


def _written(secret: str) -> Iterator[str]:
    yield secret
    yield secret.strip()
    lines = secret.splitlines()
    yield from lines if len(lines) > 1 else ()
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    whole = secret.encode("utf-8", "surrogatepass")
    yield repr(whole)[2:-1]
    yield from (quote(whole), quote(whole, safe=""), quote_plus(whole))
    yield base64.b64encode(whole).decode().rstrip("=")


KNOWN: Final = Concealed()
"""The secrets of this process."""
