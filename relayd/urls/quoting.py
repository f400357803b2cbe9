"""What messages may quote of a user's name or value: nothing that may be a pasted secret."""

import re
from collections.abc import Sequence
from typing import Final

from relayd.urls.concealed import HIDDEN
from relayd.urls.safe import shown

ELLIPSIS: Final = "…"
_LONGEST_NAME: Final = 60
_GROUP: Final = r"(?:[A-Z]?[a-z]{1,15}(?:[A-Z][a-z]{1,15}){0,2}|[A-Z]{1,15})"
_NAME: Final = re.compile(
    rf"|\d{{1,3}}|{_GROUP}(?:[_-]{{1,2}}{_GROUP}){{0,4}}(?:(?<=[a-z])\d{{1,3}})?"
)
"""Words with a short number at the end, or a number: a key's name, also a mistyped one."""
_LIKE_A_KEY: Final = re.compile(r"[A-Za-z0-9_~+=.-]{12,}")
"""Characters of keys and tokens; excludes paths, URLs, addresses and sentences."""
_NUMBER: Final = re.compile(r"[0-9.,+-]+[a-z]{0,3}")
_FILE: Final = re.compile(r"[^.]+\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)
_WORDS: Final = re.compile(r"[A-Za-z]?[a-z]{0,15}(?:[-_][a-z]{1,15})?\d{0,3}")
_QUOTED: Final = re.compile(r"'((?:[^'\\]|\\.){6,})'")


def plain_name(name: str) -> str:
    """Return a name if it looks like one, else an ellipsis: it may be a pasted key."""
    return name if len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) else ELLIPSIS


def dotted(path: Sequence[object]) -> str:
    """Return the parts of a path joined by dots, each through `plain_name`."""
    return ".".join(plain_name(str(part)) for part in path)


def plain_names_in(text: str) -> str:
    """Return a parser's message, without what it quotes in ' unless it is a plain name."""
    return _QUOTED.sub(lambda found: f"'{plain_name(found[1])}'", text)


def quoted(value: str) -> str:
    """Return a value in quotes; what may be a key or token is hidden."""
    is_key = _LIKE_A_KEY.fullmatch(value) and not _NUMBER.fullmatch(value)
    if is_key and not _FILE.fullmatch(value) and plain_name(value) == ELLIPSIS:
        return HIDDEN
    return repr(shown(value))


def quoted_place(place: str) -> str:
    """Return a value meant as URL or path, in quotes; anything else may be a secret: hidden."""
    is_place = any(mark in place for mark in "/:\\") or _FILE.fullmatch(place)
    return repr(shown(place)) if is_place or _WORDS.fullmatch(place) else HIDDEN
