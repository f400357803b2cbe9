"""URLs that may hold secrets: a safe form for messages, the whole URL for opening it.

User info, query and fragment are never shown. Of a path, the first part is shown if it is a
plain word ("live", "cam1", "faces") and the last one if it is a plain file name ("anna.png");
anything else may be a token and becomes "…". The last part of an RTMP URL is its stream key. Local
paths and generators (lavfi:) are no secret.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from relayd.urls.concealed import HIDDEN, KNOWN

ELLIPSIS: Final = "…"
_LEFT_OUT: Final = "?…"
"""Replaces query and fragment."""
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}):\\?/\\?/(.*)", re.DOTALL)
_URL_IN_TEXT: Final = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}:\\?/\\?/(?:[^\s/]*@)?[^\s\"'<>`|]*"
)
_TRAILING: Final = ".,:;!)\\"
"""Punctuation after a URL in a sentence, not part of it."""
_HOST: Final = re.compile(r"(?:[\w.{}-]{0,253}|\[[0-9A-Fa-f:.]{1,45}\])(?::\d{0,6})?")
_GROUP: Final = r"[A-Za-z]?[a-z]{0,11}(?:[A-Z][a-z]{1,11}){0,2}\d{0,3}"
_WORD: Final = re.compile(rf"{_GROUP}(?:[-_]{_GROUP})?|\{{[a-z_]{{1,20}}\}}|{ELLIPSIS}")
"""One or two words with a short number at the end, or a placeholder of a template: a name chosen by
a person. Keys and tokens have more digits, capitals or groups."""
_ENDING: Final = re.compile(r"\.[a-z][a-z0-9]{1,4}")
_HEX: Final = re.compile(r"[0-9a-f]{8,}", re.IGNORECASE)
_ENDPOINTS: Final = {"whip", "whep"}
_WITHOUT_SCHEME: Final = re.compile(r"(?![/.~]|lavfi:)[^\s@]*(?::|//)[^\s]*@(.*)", re.DOTALL)
"""The scheme, or one of its slashes, is missing before user and password."""
_SECRET_NAME: Final = re.compile(
    r"(?i)pass|pwd|token|key|sig|auth|secret|user|usr|streamid|credential|cookie|header|proxy"
)
_PLACEHOLDER: Final = re.compile(rf"[{{}}]|{ELLIPSIS}|{re.escape(HIDDEN)}")
_PLAIN_SECRET: Final = re.compile(r"[a-z]+|\d{1,7}")
"""A secret that is a plain word or number: hiding it alone would hide our own words."""


class MediaUrl:
    """A URL, path or generator; as text it is its safe form, `reveal` returns the whole."""

    __slots__ = ("_safe", "_whole")

    def __init__(self, whole: str) -> None:
        """Accept any text; opening it reports what is wrong with it."""
        self._whole = whole
        self._safe = shown(whole)

    @classmethod
    def of(cls, url: "str | MediaUrl") -> "MediaUrl":
        """Return `url` itself, or make one of a text."""
        return url if isinstance(url, MediaUrl) else cls(url)

    def reveal(self) -> str:
        """Return the whole URL, to open it.

        Error messages may quote it: in this process's texts the safe form replaces it.
        """
        self.conceal()
        return self._whole

    def conceal(self, *, lasting: bool = False) -> None:
        """Hide the whole and its secret parts in all texts of this process."""
        is_template = "{" in self._whole and without_secrets(self._whole) == self._whole
        if self._safe == self._whole or is_template:
            return
        KNOWN.add(self._whole, self._safe, lasting=lasting)
        for part in _secret_parts(self._whole):
            KNOWN.add(part, lasting=lasting)

    @property
    def scheme(self) -> str:
        """What comes before `://`, in lower case; empty for a path or generator."""
        url = _URL.fullmatch(self._whole)
        return url[1].lower() if url else ""

    @property
    def has_host(self) -> bool:
        """Whether it is a URL that names a host."""
        try:
            return bool(self.scheme and urlsplit(self._whole).hostname)
        except ValueError:  # brackets that are no IPv6 address
            return False

    @property
    def holds_secret(self) -> bool:
        """Whether a part of it grants access: a password, a token, a stream key."""
        return any(_secret_parts(self._whole))

    def __str__(self) -> str:
        return self._safe

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._safe!r})"

    def __format__(self, spec: str) -> str:
        return format(self._safe, spec)

    def __bool__(self) -> bool:
        return bool(self._whole)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MediaUrl) and self._whole == other._whole

    def __hash__(self) -> int:
        return hash(self._whole)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: type[Any], _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Support settings: read from text, written as its safe form."""
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
        return core_schema.no_info_before_validator_function(
            lambda given: given._whole if isinstance(given, cls) else given,  # noqa: SLF001 - ours
            from_text,
            serialization=core_schema.to_string_ser_schema(),
        )


def shown(whole: str) -> str:
    """Return the safe form of a URL; local paths and generators as they are."""
    if url := _URL.fullmatch(whole):
        return _shortened(*url.groups(), is_known=True)
    if forgotten := _WITHOUT_SCHEME.fullmatch(whole):
        rest = _shortened("", forgotten[1], is_known=True).removeprefix("://")
        return f"{ELLIPSIS}@{rest}"
    return without_secrets(whole)


def without_secrets(text: str) -> str:
    """Return a foreign text with each URL in it shortened to parts that do not look secret."""
    return _URL_IN_TEXT.sub(_in_text, text) if "//" in text or "\\/" in text else text


def service_url(base_url: str) -> str:
    """Return a service's base URL for display: without user info, with its plain path."""
    return without_secrets(base_url)


def is_secret_name(name: str) -> bool:
    """Whether an option or query field of this name may hold a secret."""
    return _SECRET_NAME.search(name) is not None


def _in_text(found: re.Match[str]) -> str:
    whole = found[0].rstrip(_TRAILING)
    url = _URL.fullmatch(whole)
    return _shortened(*url.groups(), is_known=False) + found[0][len(whole) :] if url else found[0]


def _shortened(scheme: str, rest: str, *, is_known: bool) -> str:
    """Build the safe form; a URL found in a text (not `is_known`) keeps all plain parts."""
    if scheme.lower() == "file":
        return f"{scheme}://{rest}"
    rest = rest.replace("\\/", "/")
    authority, path, is_more = _split(rest)
    host = authority.rpartition("@")[2]
    if not _HOST.fullmatch(host) or "@" in rest[len(authority) :]:
        host = ELLIPSIS  # with a stray / ? or # in a password, it may be a part of it
    return f"{scheme}://{host}{_path(scheme, path, is_known)}{_LEFT_OUT if is_more else ''}"


def _split(rest: str) -> tuple[str, str, bool]:
    """Split what follows `://` as FFmpeg does: authority, path, and whether there is more."""
    end = re.search(r"[?#]", rest)
    before = rest[: end.start()] if end else rest
    if end and "@" in rest[end.start() :] and "@" not in before:
        return ELLIPSIS, "", True  # a stray ? or # in a password
    authority, slash, path = before.partition("/")
    return authority, slash + path, end is not None


def _path(scheme: str, path: str, is_known: bool) -> str:  # noqa: FBT001 - private, one caller
    parts = [part for part in path.split("/") if part]
    if not parts:
        return path[:1]
    last = len(parts) - 1
    kept = [
        part
        if _is_plain(part, is_last=number == last)
        and (not is_known or _is_informative(number, parts))
        else ELLIPSIS
        for number, part in enumerate(parts)
    ]
    if scheme.lower().startswith("rtmp"):
        kept[last] = ELLIPSIS
    shorter = [
        part
        for number, part in enumerate(kept)
        if part != ELLIPSIS or kept[number - 1 : number] != [ELLIPSIS]
    ]
    return "/" + "/".join(shorter)


def _is_informative(number: int, parts: list[str]) -> bool:
    """Whether a part is worth showing by position: the first one, or a file name at the end."""
    is_file = number == len(parts) - 1 and ("." in parts[number] or parts[number] in _ENDPOINTS)
    return number == 0 or is_file


def _is_plain(part: str, *, is_last: bool) -> bool:
    name, dot, ending = part.rpartition(".")
    if is_last and dot and _ENDING.fullmatch(dot + ending):
        part = name
    return bool(part) and _WORD.fullmatch(part) is not None and not _HEX.fullmatch(part)


_FLAG = "listen"
"""An option of FFmpeg's that needs no value. As a secret it would hide "nothing listens"."""


def _secret_parts(whole: str) -> Iterator[str]:
    """Return the secret parts of a URL, which others might quote alone."""
    url = _URL.fullmatch(whole)
    scheme, rest = url.groups() if url else ("", whole)
    before, _, query = rest.partition("?")
    user_info, at, place = before.rpartition("@")
    if at:
        password = user_info.partition(":")[2]
        user = user_info.partition(":")[0]
        # As an HTTP client encodes it: with a colon, even without a password.
        basic = unquote(user_info) if ":" in user_info else f"{unquote(user_info)}:"
        yield from filter(_is_recognisable, (user_info, basic, user, password, unquote(password)))
    for pair in re.split("[&;]", query):
        if pair == _FLAG:
            continue
        name, is_named, value = pair.partition("=")
        if not is_named or is_secret_name(name):
            yield query
            yield from filter(_is_recognisable, (pair, value, unquote(value)))
    parts = place.partition("/")[2].split("/")
    for number, part in enumerate(parts):
        is_key = scheme.lower().startswith("rtmp") and number == len(parts) - 1
        if _is_recognisable(part) and (
            is_key or not _is_plain(part, is_last=number == len(parts) - 1)
        ):
            yield part


def _is_recognisable(secret: str) -> bool:
    return not _PLAIN_SECRET.fullmatch(secret) and not _PLACEHOLDER.search(secret)
