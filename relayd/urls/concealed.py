"""The exact strings that must not be read, and what stands for each of them.

Two lists: the secrets of the configuration stay, and of those that come and go, such as a session's
tokens, the newest are kept. Both are bounded, so that a line of the log costs the same after weeks.
"""

from threading import Lock
from typing import Final

HIDDEN: Final = "***"
MOST_KEPT: Final = 50
"""Strings in each list: a session has a token and a few URLs, a configuration some ten secrets."""
SHORTEST: Final = 6
"""Characters; shorter strings would blot out ordinary words."""


class Concealed:
    """A bounded store of secrets; any thread may use it."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._lock = Lock()
        self._lasting: dict[str, str] = {}
        self._passing: dict[str, str] = {}
        self._longest_first: tuple[tuple[str, str], ...] = ()
        """A secret that begins another must not leave that one's end to be read."""

    def add(self, secret: str, shown: str = HIDDEN, *, lasting: bool = False) -> None:
        """Have `secret` replaced by `shown` from now on; too short ones are left out.

        Unless it is `lasting` it is forgotten once `most` others were added after it.
        """
        if len(secret) < SHORTEST or secret in shown:
            return
        with self._lock:
            kept = self._lasting if lasting or secret in self._lasting else self._passing
            if kept.pop(secret, None) == shown:  # now the newest one
                kept[secret] = shown
                return
            kept[secret] = shown
            if len(kept) > self._most:
                del kept[next(iter(kept))]
            known = self._passing | self._lasting
            self._longest_first = tuple(sorted(known.items(), key=lambda one: -len(one[0])))

    def replaced_in(self, text: str) -> str:
        """Give `text` with each known secret replaced."""
        for secret, shown in self._longest_first:  # a tuple: other threads add meanwhile
            if secret in text:
                text = text.replace(secret, shown)
        return text

    def __len__(self) -> int:
        """Count the secrets kept."""
        return len(self._longest_first)


KNOWN: Final = Concealed()
"""Those of this process."""
