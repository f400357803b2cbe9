"""The service's answers: many shapes are accepted, their values are checked strictly.

Shapes are those of the Live Face Swap page of docs.akool.com, and older ones that public clients
still see.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from pydantic import SecretStr

from relayd.errors import ServerFault, ServiceError
from relayd.logs import conceal

POINTS_OF_A_FACE = 4
"""Points that `opts` of create and update takes; detect returns six as numbers, four as text."""

LONGEST_ID = 1024
"""Characters; real ids have 1 to 24, and an RTC token has about 140."""

_NESTING = 4
"""List levels a landmark answer may have: frames, faces, points, and one to spare."""

_POINT = re.compile(r"\s*-?\d{1,5}(?:\.\d{1,9})?\s*,\s*-?\d{1,5}(?:\.\d{1,9})?\s*")


class Status(Enum):
    """`faceswap_status`: the state of a session at the service."""

    QUEUING = 1
    """Waits for a free engine."""
    PROCESSING = 2
    """The engine is in the channel: it can be joined."""
    SUCCESS = 3
    """Ended."""
    FAILED = 4
    """Given up by the service."""

    @classmethod
    def read(cls, value: object) -> Self | None:
        """Return the status of a number or a numeric text; None for anything else."""
        number = whole_number(value)
        return cls(number) if number in {member.value for member in cls} else None


def whole_number(value: object) -> int | None:
    """Read 7, 7.0 or "7" as 7; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def _plain_text(value: object) -> str:
    """Return an id or token as text; "" if it is missing or has characters that no id has."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str) or len(value) > LONGEST_ID or not value.isprintable():
        return ""
    return value.strip()


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session at the service: it exists and is billed until it is closed.

    `flaw` says why it cannot be used although it exists; `check` raises it.
    """

    id: str
    status: Status | None
    """None if the answer has none, or an unknown one."""
    channel_id: str
    front_user_id: str
    """The user that we join as."""
    algorithm_user_id: str
    """The user that sends the swapped pictures."""
    front_rtc_token: SecretStr
    app_id: str
    """May be empty: Akool's own sample answer has none."""
    flaw: ServiceError | None = field(default=None, compare=False)

    @classmethod
    def read(cls, data: object, refusal: ServiceError | None = None) -> Self | None:
        """Read a create answer's `data`; None when it names no session.

        An id is enough: even if the rest is wrong, or there is a `refusal`, that session may be
        billed and has to be closed.
        """
        if not isinstance(data, Mapping) or not (session_id := _plain_text(data.get("_id"))):
            return None
        names = ("channel_id", "front_rtc_token", "front_user_id", "algorithm_user_id")
        texts = {name: _plain_text(data.get(name)) for name in names}
        conceal(texts["front_rtc_token"])
        missing = next((name for name, text in texts.items() if not text), None)
        if refusal is None and missing is not None:
            refusal = ServerFault(f"create: the session's {missing} is missing or unreadable")
        engine = texts["algorithm_user_id"]
        if refusal is None and engine in {
            "0",
            texts["front_user_id"],
        }:  # that user's pictures are ours
            refusal = ServerFault(f"create: algorithm_user_id = {engine!r} is no user of its own")
        return cls(
            id=session_id,
            status=Status.read(data.get("faceswap_status")),
            channel_id=texts["channel_id"],
            front_user_id=texts["front_user_id"],
            algorithm_user_id=texts["algorithm_user_id"],
            front_rtc_token=SecretStr(texts["front_rtc_token"]),
            app_id=_plain_text(data.get("app_id")),
            flaw=refusal,
        )

    def check(self) -> None:
        """Raise ServiceError naming what is wrong, if the session cannot be used."""
        if self.flaw is not None:
            raise self.flaw


def read_token(data: Mapping[str, Any]) -> SecretStr | None:
    """Read the RTC token of an answer's `data`; None if it has no valid one."""
    text = _plain_text(data.get("front_rtc_token"))
    conceal(text)
    return SecretStr(text) if text else None


@dataclass(frozen=True, slots=True)
class Face:
    """One face found in an image.

    The fourth point is the middle of the mouth in detect's own sample and its left corner in
    create's; it is passed on as detect returned it.
    """

    landmarks: str
    """In the format of `opts` of create and update: "x,y:x,y:x,y:x,y", pixels of the image."""

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """The same as (x, y) pairs, pixels."""
        pairs = (point.split(",") for point in self.landmarks.split(":"))
        return tuple((float(x), float(y)) for x, y in pairs)


def read_faces(body: Mapping[str, Any]) -> list[Face]:
    """Read a detect answer of any known shape; each distinct face once, in order.

    `faces_obj` as a dict by index or as a list; the older flat `landmarks_str` (one text, a list,
    a list of lists) and `landmarks` (nested numbers), at the top or in `data`. Raises ServerFault
    when landmarks are present but unreadable, or when no known field is present.
    """
    entries = list(_entries(body))
    if not entries:
        raise ServerFault("detect_faces: the answer has neither faces_obj nor landmarks")
    found: dict[str, Face] = {}
    for entry in entries:
        texts = entry.get("landmarks_str") or []
        faces = list(_from_texts(texts, _NESTING))
        numbers = entry.get("landmarks") or []
        faces = faces or list(_from_numbers(numbers, _NESTING))
        if (texts or numbers) and not faces:
            raise ServerFault("detect_faces: the answer's landmarks are unreadable")
        found |= {face: Face(face) for face in faces}
    return list(found.values())


def _entries(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for holder in (body, body.get("data")):
        if not isinstance(holder, Mapping):
            continue
        listed = holder.get("faces_obj")
        if isinstance(listed, Mapping):
            listed = list(listed.values())
        if "faces_obj" in holder and not listed:
            yield {}  # empty is an answer: no face
        elif isinstance(listed, list):
            yield from (entry for entry in listed if isinstance(entry, Mapping))
        elif "landmarks_str" in holder or "landmarks" in holder:
            yield holder


def _from_texts(value: object, depth: int) -> Iterator[str]:
    """Return the landmark texts of "x,y:x,y:…", of lists of it, and of lists of "x,y"."""
    if isinstance(value, str):
        points = value.split(":")
        if len(points) >= POINTS_OF_A_FACE and all(_POINT.fullmatch(point) for point in points):
            yield ":".join("".join(point.split()) for point in points)
    elif isinstance(value, list) and depth:
        if value and all(isinstance(item, str) and _POINT.fullmatch(item) for item in value):
            yield from _from_texts(":".join(value), depth - 1)
        else:
            for item in value:
                yield from _from_texts(item, depth - 1)


def _from_numbers(value: object, depth: int) -> Iterator[str]:
    """Return the landmark texts of [[x, y], …] and of lists of it: the first four points."""
    if not isinstance(value, list) or not depth:
        return
    if len(value) >= POINTS_OF_A_FACE and all(_is_point(item) for item in value):
        yield ":".join(f"{round(x)},{round(y)}" for x, y in value[:POINTS_OF_A_FACE])
    else:
        for item in value:
            yield from _from_numbers(item, depth - 1)


def _is_point(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == len(("x", "y"))
        and all(
            isinstance(part, int | float)
            and not isinstance(part, bool)
            and math.isfinite(part)
            and abs(part) < 1e5  # noqa: PLR2004 - five digits, as text
            for part in value
        )
    )
