"""The service's endpoints, and what its error codes and HTTP statuses mean to relayd.

Codes: docs.akool.com, "Error code" and "Live Face Swap, Response Code Description".
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relayd.akool.models import whole_number
from relayd.errors import (
    CredentialsRefused,
    FaceRejected,
    QuotaExhausted,
    RequestRefused,
    ServerFault,
    ServiceError,
    SessionUnknown,
    Throttled,
)
from relayd.http.client import Answer
from relayd.logs import excerpt


@dataclass(frozen=True, slots=True)
class ErrorMeaning:
    """What a code means: the error to raise, its message, and a hint for the user."""

    error: type[ServiceError]
    means: str
    hint: str = ""


_KEY = "check [akool] api_key, or client_id and client_secret"
_ACCOUNT = "see the account's page at the service"
_CREDIT = "top up the account's credit"
_FACE = "check [face] image and landmarks"
_BASE_URL = "check [akool] base_url"

BY_CODE: Mapping[int, ErrorMeaning] = {
    1003: ErrorMeaning(RequestRefused, "a parameter is wrong or empty", _FACE),
    1004: ErrorMeaning(CredentialsRefused, "the account needs verification", _ACCOUNT),
    1005: ErrorMeaning(Throttled, "too many requests"),
    1006: ErrorMeaning(QuotaExhausted, "the quota is used up", _CREDIT),
    1008: ErrorMeaning(RequestRefused, "what was asked for does not exist"),
    1009: ErrorMeaning(RequestRefused, "the account may not do this", _ACCOUNT),
    1010: ErrorMeaning(RequestRefused, "this cannot be operated on"),
    1011: ErrorMeaning(RequestRefused, "this cannot be operated on"),
    1014: ErrorMeaning(RequestRefused, "a resource is missing", _FACE),
    1015: ErrorMeaning(ServerFault, "the service could not make the video"),
    1016: ErrorMeaning(ServerFault, "the service could not swap the face"),
    1017: ErrorMeaning(ServerFault, "the service could not make the audio"),
    1101: ErrorMeaning(CredentialsRefused, "the key is wrong or the token has expired", _KEY),
    1102: ErrorMeaning(CredentialsRefused, "no authorization arrived", _KEY),
    1103: ErrorMeaning(QuotaExhausted, "the account is not paid", _CREDIT),
    1104: ErrorMeaning(QuotaExhausted, "the quota is used up", _CREDIT),
    1109: ErrorMeaning(CredentialsRefused, "there is no such account", _KEY),
    1200: ErrorMeaning(CredentialsRefused, "the account is blocked", _ACCOUNT),
}

BY_STATUS: Mapping[int, ErrorMeaning] = {
    401: ErrorMeaning(CredentialsRefused, "the key is wrong or the token has expired", _KEY),
    402: ErrorMeaning(QuotaExhausted, "the quota is used up", _CREDIT),
    403: ErrorMeaning(CredentialsRefused, "access is forbidden", _KEY),
    404: ErrorMeaning(RequestRefused, "there is no such endpoint", _BASE_URL),
    408: ErrorMeaning(ServerFault, "the service waited too long for the request"),
    429: ErrorMeaning(Throttled, "too many requests"),
}

_BY_HUNDRED: Mapping[int, ErrorMeaning] = {
    3: ErrorMeaning(ServerFault, "redirected elsewhere", _BASE_URL),
    4: ErrorMeaning(RequestRefused, "the request was refused", _BASE_URL),
}
_UNKNOWN = ErrorMeaning(ServerFault, "the service failed")

_SESSION_GONE = ErrorMeaning(SessionUnknown, "there is no such session")
_IMAGE_REFUSED = ErrorMeaning(FaceRejected, "the service cannot use the face image", _FACE)
_GONE = {1008: _SESSION_GONE, 1014: _SESSION_GONE}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of the API; `own` holds the codes that mean something else here."""

    path: str
    method: str = "POST"
    success: frozenset[int] = frozenset({1000})
    needs_code: bool = True
    """False if answers without a business code are known and their content decides."""
    takes_face: bool = False
    own: Mapping[int, ErrorMeaning] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last two parts of the path, for messages."""
        return "/".join(self.path.split("/")[-2:])


GET_TOKEN = Endpoint("/api/open/v3/getToken", needs_code=False)
DETECT = Endpoint(
    "/interface/detect-api/detect_faces",
    success=frozenset({0, 1000}),
    needs_code=False,
    takes_face=True,
    own=dict.fromkeys((1003, 1008, 1014), _IMAGE_REFUSED),
)
CREATE = Endpoint("/api/open/v3/faceswap/live/create", takes_face=True)
UPDATE = Endpoint("/api/open/v3/faceswap/live/update", takes_face=True, own={1008: _SESSION_GONE})
CLOSE = Endpoint("/api/open/v3/faceswap/live/close", own=_GONE)
INFO = Endpoint("/api/open/v3/faceswap/live/info", own=_GONE)
"""Not documented; seen in public clients. relayd works without it."""
CREDIT = Endpoint("/api/open/v3/faceswap/quota/info", method="GET")

ENDPOINT_MISSING = frozenset({404, 405, 501})
"""HTTP statuses (and codes that repeat them) of a path that the service does not have."""

_OF_IMAGE = re.compile(
    r"(?i)\b(?:faces?|images?|pictures?|photos?|landmarks?|media|download\w*|resolution)\b"
)
_LONGEST_SERVICE_TEXT = 200
"""Characters of the service's own message that ours repeats."""


def read_body(endpoint: Endpoint, answer: Answer) -> tuple[dict[str, Any], ServiceError | None]:
    """Return the answer's JSON object ({} if it has none) and the error that it means.

    A known business code decides, else the HTTP status, else a code that repeats an HTTP status.
    Anything else is a ServerFault.
    """
    try:
        body = answer.json()
    except ServerFault as fault:
        return {}, error_of(endpoint, answer, {}) or fault
    if not isinstance(body, dict):
        no_object = ServerFault(f"{endpoint.name}: the answer is no JSON object")
        return {}, error_of(endpoint, answer, {}) or no_object
    error = error_of(endpoint, answer, body)
    if error is None and endpoint.needs_code and code_of(body) is None:
        error = ServerFault(f"{endpoint.name}: the answer has no code")
    return body, error


def code_of(body: Mapping[str, Any]) -> int | None:
    """Return the business code, which detect calls error_code."""
    return whole_number(body.get("code", body.get("error_code")))


def error_of(endpoint: Endpoint, answer: Answer, body: Mapping[str, Any]) -> ServiceError | None:
    """Return the error that an answer means; None for a success."""
    code = code_of(body)
    good_status = answer.status // 100 == 2  # noqa: PLR2004 - the 2xx of HTTP
    if good_status and (code is None or code in endpoint.success):
        return None
    meaning = endpoint.own.get(code or 0) or BY_CODE.get(code or 0)
    if meaning is None and not good_status:
        meaning = BY_STATUS.get(answer.status) or _BY_HUNDRED.get(answer.status // 100)
    meaning = meaning or BY_STATUS.get(code or 0) or _UNKNOWN
    text = _service_text(body)
    mentions_image = endpoint.takes_face and bool(_OF_IMAGE.search(text))
    if mentions_image and (
        meaning.error is RequestRefused or (good_status and meaning is _UNKNOWN)
    ):
        meaning = _IMAGE_REFUSED
    where = f"HTTP {answer.status}" if code is None or not good_status else ""
    which = f"code {code}" if code is not None else ""
    details = ", ".join(part for part in (where, which, text and repr(text)) if part)
    message = f"{endpoint.name}: {meaning.means} [{details}]"
    if issubclass(meaning.error, Throttled):
        return meaning.error(
            message, hint=meaning.hint, code=code, retry_after=_retry_after(answer.headers)
        )
    return meaning.error(message, hint=meaning.hint, code=code)


def _service_text(body: Mapping[str, Any]) -> str:
    """Return the service's own message: redacted first, then cut, without control characters."""
    message = next(
        (body[key] for key in ("msg", "error_msg", "message") if isinstance(body.get(key), str)), ""
    )
    text = excerpt(message, 2 * _LONGEST_SERVICE_TEXT)
    printable = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return (
        printable
        if len(printable) <= _LONGEST_SERVICE_TEXT
        else printable[:_LONGEST_SERVICE_TEXT] + "…"
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds (RFC 9110 §10.2.3); the date form is ignored."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
