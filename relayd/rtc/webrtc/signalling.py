"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) signalling: an offer posted, a session deleted.

Both are the same exchange; the SDP says who sends the pictures.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

from relayd import logs
from relayd.errors import JoinFailed, JoinRefused, ServiceError
from relayd.http.client import Answer, HttpClient
from relayd.logs import LogEvent, excerpt
from relayd.rtc.webrtc.engine import Unacceptable
from relayd.urls.safe import MediaUrl

SDP_TYPE = "application/sdp"
MAX_REDIRECTS = 3
LARGEST_BODY = 64 * 1024
"""Bytes; an SDP answer with one video track has about 3 kB."""
LONGEST_QUOTE = 300
"""Characters of a server's text that are quoted."""
LONGEST_RETRY_AFTER = 60.0
"""s; a longer Retry-After is cut to this."""

_REFUSALS = {
    400: "the offer was called malformed",
    401: "the token was refused",
    403: "the token does not allow it",
    405: "the URL is no WHIP or WHEP endpoint",
    406: "the offer was not acceptable (no common codec?)",
    410: "the channel is gone",
    413: "the offer was too large",
    415: "the URL does not take application/sdp",
    422: "the offer was not acceptable (no common codec?)",
}

_OF_THE_OFFER = {400, 406, 415, 422}
"""Refusals that another offer may not get."""

_log = logs.get("whip")


@dataclass(frozen=True, slots=True)
class Resource:
    """A session that the server made for us."""

    answer: str
    """SDP."""
    location: str | None
    """Where to DELETE it; None when the server named no trusted location."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """The server cannot take the offer now, but maybe later."""

    status: int
    why: str
    retry_after: float | None
    """s, if the server sent one."""


async def post_offer(
    http: HttpClient,
    url: str,
    offer: str,
    token: str,
    *,
    timeout: float,  # noqa: ASYNC109 - httpx enforces it
) -> Resource | NotNow:
    """POST an SDP offer with the bearer token; follow redirects that keep the method.

    Raises JoinRefused if trying again cannot help, Unacceptable if another offer may, JoinFailed
    if the same one may.
    """
    origin = _origin(url)
    for _ in range(MAX_REDIRECTS + 1):
        # A redirect elsewhere is followed, but the token is only sent to the original origin.
        bearer = {"Authorization": f"Bearer {token}"} if token and _origin(url) == origin else {}
        try:
            answer = await http.request(
                "POST",
                url,
                headers={"Content-Type": SDP_TYPE, "Accept": SDP_TYPE} | bearer,
                content=offer,
                timeout=timeout,
                largest=LARGEST_BODY,
            )
        except ServiceError as fault:
            raise JoinFailed(_quoted(fault.message)) from fault
        if answer.status not in (307, 308):
            return _read(url, answer)
        url = _redirected(url, answer)
    raise JoinFailed(f"{origin} redirected more than {MAX_REDIRECTS} times")


async def delete(
    http: HttpClient,
    resource: Resource,
    token: str,
    *,
    timeout: float,  # noqa: ASYNC109 - httpx enforces it
) -> None:
    """End a session on the server; a failure is only logged, as the session times out there."""
    if resource.location is None:
        return
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = await http.request(
            "DELETE", resource.location, headers=bearer, timeout=timeout, largest=LARGEST_BODY
        )
    except ServiceError as fault:
        _log.warning(LogEvent.LINK_RESOURCE_NOT_DELETED, reason=_quoted(fault.message))
        return
    if answer.status >= HTTPStatus.MULTIPLE_CHOICES and answer.status not in (404, 410):
        _log.warning(LogEvent.LINK_RESOURCE_NOT_DELETED, status=answer.status)


def _read(url: str, answer: Answer) -> Resource | NotNow:
    if answer.status in (200, 201):
        return Resource(_sdp_of(url, answer), _location_of(url, answer))
    status = f"HTTP {answer.status}"
    if answer.status in _REFUSALS:
        refusal = Unacceptable if answer.status in _OF_THE_OFFER else JoinRefused
        raise refusal(f"{MediaUrl(url)}: {_REFUSALS[answer.status]} ({status})")
    if (
        answer.status in (404, 408, 409, 425, 429)
        or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        return NotNow(answer.status, f"{MediaUrl(url)} answered {status}", _retry_after(answer))
    raise JoinFailed(f"{MediaUrl(url)} answered {status}, which WHIP does not know")


def _sdp_of(url: str, answer: Answer) -> str:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind.lower() != SDP_TYPE:
        sent = _quoted(kind) or "no type"  # as sent: redaction knows no lower-case token
        raise JoinFailed(f"{MediaUrl(url)} answered {sent!r} where {SDP_TYPE} must be")
    return answer.text


def _location_of(url: str, answer: Answer) -> str | None:
    """Read the session's URL; only the same origin is trusted, as the token is sent there."""
    location = answer.headers.get("location", "").strip()
    if not location:
        _log.warning(
            LogEvent.LINK_NO_LOCATION,
            url=str(MediaUrl(url)),
        )
        return None
    try:
        target = urljoin(url, location)
        same = _origin(target) == _origin(url)
    except ValueError:
        same = False
    if not same:
        _log.warning(LogEvent.LINK_FOREIGN_LOCATION, location=_quoted(location))
        return None
    return target


def _redirected(url: str, answer: Answer) -> str:
    try:
        target = urljoin(url, answer.headers.get("location", ""))
        scheme, host = urlsplit(target).scheme, urlsplit(target).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        raise JoinFailed(f"{MediaUrl(url)} redirected to nowhere")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise JoinRefused(f"{MediaUrl(url)} redirected from https to http")
    return target


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "").strip()
    if not re.fullmatch(r"[0-9]{1,6}", value):  # a date is allowed too, but too rare to support
        return None
    return min(float(value), LONGEST_RETRY_AFTER)


def _quoted(text: str) -> str:
    """Return `text` without secrets, cut to LONGEST_QUOTE."""
    return excerpt(text, LONGEST_QUOTE)


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454 §4); ValueError when the port is no number."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme.lower(), (parts.hostname or "").lower(), port
