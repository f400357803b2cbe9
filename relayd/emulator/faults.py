"""Faults that can be set in the emulator, to test that a relay survives them.

`POST /emulator/faults` with `{"fault": NAME, …}` sets one; the table FAULTS names them all.
Besides its own options each takes a scope:

- `calls` (int): only for the next N answers, pictures or blocks of 10 ms of sound; 0 is without
  limit;
- `seconds` (number): only for that long; 0 is until it is cleared;
- `endpoint` (str): only this one of ENDPOINTS; "" is all of them;
- `session` (str): only this session's pictures or connections; "" is all of them.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from threading import Lock
from typing import Any

import numpy as np

from relayd.clock import Clock
from relayd.errors import UsageError
from relayd.media.frames import I420, luma

ENDPOINTS = (
    "getToken", "detect_faces", "create", "update", "close", "info", "quota", "whip", "whep",
)  # fmt: skip
"""Where a fault of an answer can be set."""
LARGEST_NUMBER = 1e9
"""Of any option: more is pointless, and clocks can still add it."""
LONGEST_SOUND_DELAY = 10.0
"""s that `late` can hold sound back."""


class Stage(Enum):
    """Where a fault applies."""

    ANSWER = "answer"
    """It suppresses, delays or corrupts an HTTP answer."""
    CREATE = "create"
    """It changes the answer to create, or how long the session queues."""
    PICTURE = "picture"
    """It changes, drops or replaces swapped pictures."""
    SOUND = "sound"
    """It returns sound to players; without it they get none."""
    AT_ONCE = "at_once"
    """It happens once, now, to the open sessions (or to the one named)."""


class SoundKind(StrEnum):
    """What a player hears (stage SOUND)."""

    NONE = "none"
    """Nothing, as from the service as far as anybody knows."""
    ECHO = "echo"
    """What the publisher sends, beside its picture."""
    TONE = "tone"
    """440 Hz, whatever the publisher sends."""
    LATE = "late"
    """What the publisher sends, some time after its picture."""
    LOSSY = "lossy"
    """What the publisher sends, with packets missing."""


@dataclass(frozen=True, slots=True)
class SoundFault:
    """What a player hears, now."""

    kind: SoundKind = SoundKind.NONE
    delay: float = 0.0
    """s."""
    loss: float = 0.0
    """Share of the packets, 0 to 1."""


Options = Mapping[str, Any]
Effect = Callable[[I420, I420], I420 | None]
"""Takes source and swapped picture; returns what to send, or None to send nothing."""


@dataclass(frozen=True, slots=True)
class FaultClass:
    """One kind of fault: its stage, meaning, and options with defaults."""

    stage: Stage
    meaning: str
    options: Options = field(default_factory=dict)
    endpoint: str = ""
    """The endpoint it applies to by default."""
    act: str = ""
    """The name of its implementation, if different from the fault's."""
    effect: Callable[[Options], Effect] | None = None
    """Makes the function that changes the pictures of one session (stage PICTURE)."""


def _stall(_options: Options) -> Effect:
    return lambda _source, _swapped: None


def _unswapped(_options: Options) -> Effect:
    return lambda source, _swapped: source


def _freeze(_options: Options) -> Effect:
    kept: list[I420] = []

    def freeze(_source: I420, swapped: I420) -> I420:
        if not kept:
            kept.append(swapped.copy())
        return kept[0]

    return freeze


def _low_rate(options: Options) -> Effect:
    last_sent = [float("-inf")]

    def thin_out(_source: I420, swapped: I420) -> I420 | None:
        now = time.monotonic()
        if now - last_sent[0] < 1.0 / options["fps"]:
            return None
        last_sent[0] = now
        return swapped

    return thin_out


def _lag(options: Options) -> Effect:
    waiting: deque[tuple[float, I420]] = deque()

    def hold_back(_source: I420, swapped: I420) -> I420 | None:
        now, due = time.monotonic(), None
        waiting.append((now + options["delay"], swapped.copy()))
        while waiting and waiting[0][0] <= now:
            due = waiting.popleft()[1]
        return due

    return hold_back


def _noise(picture: I420) -> I420:
    return np.random.default_rng().integers(0, 256, picture.shape, np.uint8)


def _green(picture: I420) -> I420:
    return np.zeros_like(picture)  # all zero is what a decoder without a key frame shows


def _garbled(picture: I420) -> I420:
    garbled = picture.copy()
    rows = luma(garbled)
    bands = np.array_split(np.arange(rows.shape[0]), 12)
    shifts = np.random.default_rng().integers(0, rows.shape[1], len(bands))
    for band, shift in zip(bands, shifts, strict=True):
        rows[band] = np.roll(rows[band], int(shift), axis=1)
    return garbled


_CORRUPTIONS = {"noise": _noise, "green": _green, "garbled": _garbled}


def _corrupt(options: Options) -> Effect:
    spoil = _CORRUPTIONS.get(options["kind"])
    if spoil is None:
        raise UsageError(f"kind is one of {', '.join(_CORRUPTIONS)}, not {options['kind']!r}")
    return lambda _source, swapped: spoil(swapped)


FAULTS: Mapping[str, FaultClass] = {
    "refuse": FaultClass(
        Stage.ANSWER, "answers with a business code", {"code": 1003, "msg": "Parameter error"}
    ),
    "http_status": FaultClass(
        Stage.ANSWER,
        "answers with an HTTP error and an HTML page; retry_after in seconds, 0 sends none",
        {"status": 500, "retry_after": 0},
    ),
    "no_info": FaultClass(
        Stage.ANSWER,
        "the status look-up is not found",
        {"status": 404, "retry_after": 0},
        endpoint="info",
        act="http_status",
    ),
    "slow": FaultClass(
        Stage.ANSWER, "does the work, then answers after `delay` seconds", {"delay": 5.0}
    ),
    "cut": FaultClass(Stage.ANSWER, "does the work, then cuts the connection mid-answer"),
    "garbage": FaultClass(Stage.ANSWER, "does the work, then answers what is no JSON"),
    "old_shape": FaultClass(
        Stage.ANSWER,
        "answers in the other shape seen of getToken (token at the top) and"
        " detect_faces (flat landmarks_str)",
    ),
    "queue": FaultClass(
        Stage.CREATE, "new sessions queue for `queue_seconds` more", {"queue_seconds": 10.0}
    ),
    "empty_channel": FaultClass(
        Stage.CREATE, "create answers an empty channel", {"fields": {"channel_id": ""}}
    ),
    "no_token": FaultClass(
        Stage.CREATE, "create answers an empty token", {"fields": {"front_rtc_token": ""}}
    ),
    "stall": FaultClass(Stage.PICTURE, "no more pictures, the connection stays", effect=_stall),
    "freeze": FaultClass(Stage.PICTURE, "the same picture again and again", effect=_freeze),
    "low_rate": FaultClass(
        Stage.PICTURE, "at most `fps` pictures a second", {"fps": 5.0}, effect=_low_rate
    ),
    "lag": FaultClass(
        Stage.PICTURE, "pictures come back `delay` seconds later", {"delay": 0.25}, effect=_lag
    ),
    "corrupt": FaultClass(
        Stage.PICTURE,
        f"spoiled pictures; kind is {' | '.join(_CORRUPTIONS)}",
        {"kind": "noise"},
        effect=_corrupt,
    ),
    "unswapped": FaultClass(
        Stage.PICTURE, "pictures come back as they were sent", effect=_unswapped
    ),
    "sound": FaultClass(
        Stage.SOUND,
        f"returns sound to players that take it; kind is {' | '.join(SoundKind)}: `late` echoes"
        " `delay` seconds later, `lossy` loses the share `loss` of the packets",
        {"kind": "echo", "delay": 0.5, "loss": 0.1},
    ),
    "drop_rtc": FaultClass(Stage.AT_ONCE, "all connections die without being closed"),
    "end_session": FaultClass(Stage.AT_ONCE, "sessions end (status 3), connections close"),
    "fail_session": FaultClass(Stage.AT_ONCE, "sessions fail (status 4), connections close"),
    "expire_tokens": FaultClass(Stage.AT_ONCE, "tokens that getToken gave become invalid"),
}


@dataclass(slots=True, eq=False)
class ActiveFault:
    """A fault that has been set and is active."""

    id: int
    name: str
    options: Options
    endpoint: str
    session: str
    calls_left: int | None
    """None: without limit."""
    ends_at: float | None
    """Monotonic seconds; None: until cleared."""
    acted: int = 0
    """Answers or pictures it has affected."""
    effects: dict[str, Effect] = field(default_factory=dict)
    """By session id (stage PICTURE)."""

    @property
    def kind(self) -> FaultClass:
        """Its entry in FAULTS."""
        return FAULTS[self.name]

    @property
    def act(self) -> str:
        """The name of its implementation."""
        return self.kind.act or self.name


_SCOPE: Options = {"fault": "", "endpoint": "", "session": "", "calls": 0, "seconds": 0.0}


class FaultBoard:
    """The active faults; may be used from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._active: list[ActiveFault] = []
        self._ids = itertools.count(1)

    def set(self, fault_request: object) -> ActiveFault:
        """Set the fault that a JSON object describes; UsageError names what is wrong with it.

        A fault of stage AT_ONCE is returned but not kept: the caller carries it out.
        """
        asked = _checked(fault_request)
        kind = FAULTS[asked["fault"]]
        if kind.effect is not None:
            kind.effect(asked)  # validates its options now
        fault = ActiveFault(
            id=next(self._ids),
            name=asked["fault"],
            options={name: asked[name] for name in kind.options},
            endpoint=asked["endpoint"] or kind.endpoint,
            session=asked["session"],
            calls_left=asked["calls"] or None,
            ends_at=self._clock.now() + asked["seconds"] if asked["seconds"] else None,
        )
        if kind.stage is not Stage.AT_ONCE:
            with self._lock:
                self._active.append(fault)
        return fault

    def active(self) -> list[ActiveFault]:
        """Return the active faults, the oldest first."""
        with self._lock:
            self._remove_expired()
            return list(self._active)

    def clear(self, fault_id: int | None = None) -> int:
        """End one fault, or all of them; returns how many that were."""
        with self._lock:
            before = len(self._active)
            self._active = [
                one for one in self._active if fault_id is not None and one.id != fault_id
            ]
            return before - len(self._active)

    def take(self, stage: Stage, *, endpoint: str = "", session: str = "") -> list[ActiveFault]:
        """Return the faults for this answer or picture; each counts one call."""
        with self._lock:
            self._remove_expired()
            affected = [
                one
                for one in self._active
                if one.kind.stage is stage
                and one.endpoint in {"", endpoint}
                and one.session in {"", session}
            ]
            for one in affected:
                one.acted += 1
                one.calls_left = None if one.calls_left is None else one.calls_left - 1
            return affected

    def apply_to_picture(self, session: str, source: I420, swapped: I420) -> I420 | None:
        """Apply the faults of stage PICTURE to what a session sends."""
        shown: I420 | None = swapped
        for fault in self.take(Stage.PICTURE, session=session):
            if fault.kind.effect is not None and shown is not None:
                if session not in fault.effects:
                    fault.effects[session] = fault.kind.effect(fault.options)
                shown = fault.effects[session](source, shown)
        return shown

    def sound_of(self, session: str) -> SoundFault:
        """Return what the players of a session hear in the next 10 ms; the newest fault counts."""
        faults = self.take(Stage.SOUND, session=session)
        if not faults:
            return SoundFault()
        options = faults[-1].options
        kind = SoundKind(options["kind"])
        return SoundFault(
            kind,
            delay=options["delay"] if kind is SoundKind.LATE else 0.0,
            loss=options["loss"] if kind is SoundKind.LOSSY else 0.0,
        )

    def _remove_expired(self) -> None:
        now = self._clock.now()
        self._active = [
            one
            for one in self._active
            if one.calls_left != 0 and (one.ends_at is None or now < one.ends_at)
        ]


def _checked(fault_request: object) -> dict[str, Any]:
    """Return a request with defaults added, after checking every name and type."""
    if not isinstance(fault_request, dict) or str(fault_request.get("fault")) not in FAULTS:
        raise UsageError(f"fault is one of {', '.join(FAULTS)}")
    defaults = {**_SCOPE, **FAULTS[fault_request["fault"]].options}
    for name, value in fault_request.items():
        if name not in defaults:
            raise UsageError(
                f"{fault_request['fault']} has no {name!r}; it takes {', '.join(sorted(defaults))}"
            )
        default = defaults[name]
        kinds = (int, float) if isinstance(default, float) else type(default)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UsageError(f"{name} is a {type(default).__name__}, not {value!r}")
        if isinstance(value, int | float) and not 0 <= value <= LARGEST_NUMBER:
            raise UsageError(f"{name} is zero or more, up to {LARGEST_NUMBER:g}, not {value!r}")
    asked = {**defaults, **fault_request}
    if asked["endpoint"] not in {"", *ENDPOINTS}:
        raise UsageError(f"endpoint is one of {', '.join(ENDPOINTS)}, not {asked['endpoint']!r}")
    if asked["fault"] == "sound":
        _check_sound(asked)
    if "fps" in asked and asked["fps"] == 0:
        raise UsageError("fps is above zero; `stall` sends no pictures at all")
    if "status" in asked and not 400 <= asked["status"] <= 599:  # noqa: PLR2004  HTTP errors
        raise UsageError(f"status is an HTTP error, 400 to 599, not {asked['status']!r}")
    return asked


def _check_sound(asked: Options) -> None:
    if asked["kind"] not in list(SoundKind):
        raise UsageError(f"kind is one of {', '.join(SoundKind)}, not {asked['kind']!r}")
    if asked["loss"] > 1:
        raise UsageError(f"loss is a share, 0 to 1, not {asked['loss']!r}")
    if asked["delay"] > LONGEST_SOUND_DELAY:
        raise UsageError(f"delay is at most {LONGEST_SOUND_DELAY:g} s, not {asked['delay']!r}")
