"""What Agora's numbers mean for the relay: which error to raise.

Reasons are CONNECTION_CHANGED_REASON_TYPE, codes are ERROR_CODE_TYPE of Agora's API reference
(server gateway SDK, Linux C++ 4.x); API calls return a code's negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from relayd.errors import JoinFailed, JoinRefused, LinkError, LinkForbidden, LinkLost
from relayd.rtc.agora.events import (
    ConnectionFailed,
    Disconnected,
    SdkError,
    SdkEvent,
    TokenEnded,
)

REFUSAL_PAUSE = 60.0
"""s before the next session after an unexplained refusal: avoids a loop of billed sessions."""

_APP_ID_HINT = "set rtc.app_id to the project of the service, or leave it empty"


@dataclass(frozen=True, slots=True)
class _Meaning:
    """A number as text, and the error to raise."""

    text: str
    error: type[LinkError]
    hint: str = ""
    pause: float | None = None


_REASONS: Mapping[int, _Meaning] = {
    2: _Meaning("the connection was interrupted", LinkLost),
    3: _Meaning("the server banned this user", LinkForbidden, "ask the service"),
    4: _Meaning("no connection for twenty minutes", LinkLost),
    5: _Meaning("the channel was left", LinkLost),
    6: _Meaning("the app id is unknown", LinkForbidden, _APP_ID_HINT),
    7: _Meaning("the channel's name is refused", JoinRefused, pause=REFUSAL_PAUSE),
    8: _Meaning("the token is refused", JoinRefused, pause=REFUSAL_PAUSE),
    9: _Meaning("the token has ended", JoinRefused),
    10: _Meaning("the server refuses this user", JoinRefused, pause=REFUSAL_PAUSE),
    11: _Meaning("the proxy changed", LinkLost),
    14: _Meaning("the server did not answer for a while", LinkLost),
    16: _Meaning("the connection was lost", LinkLost),
    19: _Meaning("somebody joined under the same user id", LinkLost),
    20: _Meaning("the channel has too many broadcasters", JoinRefused, pause=REFUSAL_PAUSE),
    21: _Meaning("Agora's licence check failed", LinkForbidden, "ask the service"),
    22: _Meaning("a certificate is refused", JoinRefused, pause=REFUSAL_PAUSE),
    24: _Meaning("the app id is not the token's", LinkForbidden, _APP_ID_HINT),
}
"""Reasons 0, 1, 12, 13, 15 and 18 are joins and address changes: nothing to do."""

_CODES: Mapping[int, _Meaning] = {
    2: _Meaning("an argument is refused", JoinRefused),
    5: _Meaning("the call is refused", JoinRefused, pause=REFUSAL_PAUSE),
    17: _Meaning("the join is rejected", JoinRefused, pause=REFUSAL_PAUSE),
    101: _Meaning("the app id is unknown", LinkForbidden, _APP_ID_HINT),
    102: _Meaning("the channel's name is refused", JoinRefused, pause=REFUSAL_PAUSE),
    103: _Meaning("the server has no resources left", JoinFailed),
    109: _Meaning("the token has ended", JoinRefused),
    110: _Meaning("the token is refused", JoinRefused, pause=REFUSAL_PAUSE),
}
"""What a call may return, negative."""

_FATAL_REPORTS = frozenset({101, 102, 109, 110})
"""The codes that end a link when they are reported."""
_FATAL_WHILE_JOINING = _FATAL_REPORTS | {17, 103}
"""Any other is only logged: it passes, or a deadline ends the link."""


def end_of(event: SdkEvent, *, joining: bool) -> LinkError | None:
    """Return the error with which an event ends the link; None if the link goes on."""
    fatal = _FATAL_WHILE_JOINING if joining else _FATAL_REPORTS
    match event:
        case ConnectionFailed(reason) | Disconnected(reason):
            meaning = _REASONS.get(reason, _Meaning("the connection ended", LinkLost))
            return _error(meaning, f"Agora's reason {reason}")
        case TokenEnded():
            return _error(_CODES[109], "reported by the server")
        case SdkError(code) if code in fatal:
            return _error(_CODES[code], f"Agora's error {code}")
    return None


def describe_reason(reason: int) -> str:
    """Return the reason as text for people."""
    meaning = _REASONS.get(reason)
    return f"{meaning.text if meaning else 'the connection changed'} (Agora's reason {reason})"


def error_of_call(call: str, returned: int) -> LinkError:
    """Return the error of an SDK call that returned a negative number."""
    meaning = _CODES.get(-returned, _Meaning("the SDK refuses it", JoinFailed))
    return _error(meaning, f"{call} returned {returned}")


def _error(meaning: _Meaning, source: str) -> LinkError:
    error = meaning.error(f"{meaning.text} ({source})", hint=meaning.hint)
    error.retry_after = meaning.pause
    return error
