"""The service's HTTP API: one method per call, typed answers, failures as our own errors."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from relayd import logs
from relayd.akool.credentials import ApiKey, ClientSecret, Credentials, Token
from relayd.akool.error_codes import (
    BY_CODE,
    CLOSE,
    CREATE,
    CREDIT,
    DETECT,
    ENDPOINT_MISSING,
    GET_TOKEN,
    INFO,
    UPDATE,
    Endpoint,
    read_body,
)
from relayd.akool.models import Face, LiveSession, Status, read_faces, read_token
from relayd.akool.retry import doubt_of, in_doubt, repeated, repeated_within
from relayd.errors import (
    CredentialsRefused,
    QuotaExhausted,
    RequestRefused,
    ServerFault,
    ServiceError,
    ServiceUnreachable,
    SessionUnknown,
)
from relayd.http.client import HttpClient
from relayd.logs import LogEvent
from relayd.urls.safe import MediaUrl, service_url

CALL_DEADLINE = 20.0
"""s for one request and its whole answer; detect and create have been seen to take a few."""

LARGEST_BODY = 1024 * 1024
"""Bytes of an answer. A face list has a few kB."""

NO_SESSION = "0" * 24
"""An id in the right format (an ObjectId) that no session has."""

_TOKEN_REFUSED = frozenset({1101, 401})
"""Business code, or HTTP status if there is none, that a new token may fix."""

_log = logs.get("akool")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the JSON object ({} for none), and the error that it means."""

    status: int
    body: Mapping[str, Any]
    fault: ServiceError | None

    @property
    def data(self) -> Mapping[str, Any]:
        """The answer's `data` object; empty if there is none."""
        data = self.body.get("data")
        return data if isinstance(data, Mapping) else {}


class AkoolClient:
    """The calls, for one account. Used from one event loop; the caller closes `http`.

    Each method raises the matching ServiceError. Each request has a deadline for the whole
    exchange, so a slow trickle of bytes cannot block the caller. Calls that may be sent twice
    are retried where that can help.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        http: HttpClient,
        *,
        call_deadline: float = CALL_DEADLINE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.account = credentials.fingerprint
        """Whose sessions are opened here: the fingerprint that the journal stores."""
        self._credentials = credentials
        self._http = http
        self._call_deadline = call_deadline
        self._wall = wall
        self._token: Token | None = None
        self._login = asyncio.Lock()
        self._info_missing = False

    async def detect_faces(self, url: str) -> list[Face]:
        """Ask for the faces in the image at `url`, which the service fetches itself.

        An empty list if it found none. Raises FaceRejected when it cannot use the image.
        """
        MediaUrl(url).conceal()  # the service may quote it in messages
        payload = {"url": url, "single_face": False, "return_face_url": False, "num_frames": 1}
        return read_faces((await repeated(self._call, DETECT, payload)).body)

    async def create(self, image_url: str, landmarks: str) -> LiveSession:
        """Open a session, with one request that is never repeated here.

        A session is billed from the moment the service creates it, so an answer with an id is
        returned even if it also holds an error: journal it, then `check` it. Raises
        SessionDoubtful when the request was sent and there was no answer, a gateway's error or an
        invalid answer: a session may exist whose id is unknown and that the API has no way to
        list, and asking again at once might open a second one. After any other ServiceError,
        nothing was opened.
        """
        if isinstance(self._credentials, ClientSecret):
            await repeated(self._bearer, self._credentials)  # logging in twice does no harm
        MediaUrl(image_url).conceal()
        payload = {"sourceImage": [{"path": image_url, "opts": landmarks}]}
        reply = await self._exchange(CREATE, payload)
        session = LiveSession.read(reply.body.get("data"), reply.fault)
        if session is None:
            fault = reply.fault or ServerFault(f"{CREATE.name}: the answer has no _id")
            if in_doubt(fault):
                raise doubt_of(fault) from fault
            raise fault
        return session

    async def status(self, session_id: str) -> Status | None:
        """Look up a session's status; None if the service has no such call.

        The call is not documented (public clients use it), so its absence is remembered and is
        no error. Sent once: a caller that polls tries again anyway.
        """
        if self._info_missing:
            return None
        reply = await self._exchange(INFO, {"_id": session_id})
        if reply.fault is not None:
            code = reply.fault.code
            if (code is None and reply.status in ENDPOINT_MISSING) or code in ENDPOINT_MISSING:
                self._info_missing = True
                _log.info(LogEvent.SESSION_STATUS_UNSUPPORTED, reason=str(reply.fault))
                return None
            raise reply.fault
        status = Status.read(reply.data.get("faceswap_status", reply.data.get("status")))
        if status is None:
            raise ServerFault(f"{INFO.name}: the answer's faceswap_status is missing or unknown")
        return status

    async def fresh_token(self, session_id: str) -> SecretStr | None:
        """Ask for the session's RTC token again; None if the service gives none.

        No documented call renews a token, but the status call may return a newer one.
        """
        if self._info_missing:
            return None
        reply = await self._exchange(INFO, {"_id": session_id})
        return None if reply.fault is not None else read_token(reply.data)

    async def update(self, session_id: str, image_url: str, landmarks: str) -> None:
        """Give a running session another face. Raises SessionUnknown when it is gone."""
        MediaUrl(image_url).conceal()
        source = [{"path": image_url, "opts": landmarks}]
        await repeated(self._call, UPDATE, {"_id": session_id, "sourceImage": source})

    async def close(self, session_id: str, *, within: float = 10.0) -> bool:
        """Close a session, trying for up to `within` seconds.

        True when the service confirmed it, False when it says that there is no such session.
        """
        try:
            await repeated_within(within, self._call, CLOSE, {"_id": session_id})
        except SessionUnknown:
            _log.info(LogEvent.SESSION_UNKNOWN_AT_CLOSE, session=session_id)
            return False
        return True

    async def credit(self) -> float | None:
        """Ask for the credit left; None if the answer has none or the service lacks this call."""
        reply = await repeated(self._exchange_optional, CREDIT)
        left = reply.data.get("credit") if reply is not None else None
        if isinstance(left, bool) or not isinstance(left, int | float | str):
            return None
        try:
            credit = float(left)
        except (ValueError, OverflowError):
            return None
        return credit if math.isfinite(credit) else None

    async def check_credentials(self) -> None:
        """Try the credentials without opening a session. Raises CredentialsRefused.

        With id and secret: getToken. With a key: the documented credit call, which only reads;
        if the service lacks it, closing a session that cannot exist: the answer "unknown
        session" proves that the key was accepted.
        """
        if isinstance(self._credentials, ClientSecret):
            self._token = None
            await repeated(self._bearer, self._credentials)
        elif await repeated(self._exchange_optional, CREDIT) is None:
            try:
                await repeated(self._call, CLOSE, {"_id": NO_SESSION})
            except RequestRefused as refusal:
                if refusal.code not in BY_CODE:  # not a code of the service: a wrong base_url
                    raise

    async def _exchange_optional(self, endpoint: Endpoint) -> Reply | None:
        """Send and read the answer; None when the service does not have the endpoint."""
        reply = await self._exchange(endpoint, None)
        if reply.fault is None:
            return reply
        if isinstance(reply.fault, CredentialsRefused | QuotaExhausted) or reply.fault.retryable:
            raise reply.fault
        return None

    async def _call(self, endpoint: Endpoint, payload: Mapping[str, object]) -> Reply:
        reply = await self._exchange(endpoint, payload)
        if reply.fault is not None:
            raise reply.fault
        return reply

    async def _exchange(self, endpoint: Endpoint, payload: Mapping[str, object] | None) -> Reply:
        """Send with credentials; a second time, with a new token, when the token was refused."""
        if isinstance(self._credentials, ApiKey):
            return await self._send(endpoint, payload, {"x-api-key": self._credentials.key})
        token = await self._bearer(self._credentials)
        reply = await self._send(endpoint, payload, token.headers)
        if reply.fault is None or (reply.fault.code or reply.status) not in _TOKEN_REFUSED:
            return reply
        if self._token is token:
            self._token = None
        _log.info(LogEvent.TOKEN_REFUSED, endpoint=endpoint.name)
        token = await self._bearer(self._credentials)
        return await self._send(endpoint, payload, token.headers)

    async def _bearer(self, account: ClientSecret) -> Token:
        """Return a valid token, logging in if there is none."""
        async with self._login:  # one login, no matter how many calls wait for it
            if self._token is None or self._wall() >= self._token.renew_at:
                reply = await self._send(
                    GET_TOKEN,
                    {"clientId": account.client_id, "clientSecret": account.client_secret},
                    {},
                )
                if reply.fault is not None:
                    raise reply.fault
                self._token = Token.read(reply.body, self._wall)
                _log.debug(LogEvent.TOKEN_RENEWED)
            return self._token

    async def _send(
        self, endpoint: Endpoint, payload: Mapping[str, object] | None, headers: Mapping[str, str]
    ) -> Reply:
        try:
            return await self._send_once(endpoint, payload, headers)
        except Exception as fault:
            if endpoint is CREATE and in_doubt(fault):
                raise doubt_of(fault) from fault
            raise

    async def _send_once(
        self, endpoint: Endpoint, payload: Mapping[str, object] | None, headers: Mapping[str, str]
    ) -> Reply:
        try:
            async with asyncio.timeout(self._call_deadline):
                answer = await self._http.request(
                    endpoint.method,
                    self.base_url + endpoint.path,
                    headers={"accept": "application/json", **headers},
                    json_body=payload,
                    largest=LARGEST_BODY,
                    fresh=endpoint is CREATE,  # a kept connection may be dead and lose it
                    shown=service_url(self.base_url) + endpoint.path,
                )
        except TimeoutError as late:
            raise ServiceUnreachable(
                f"{endpoint.name}: no whole answer within {self._call_deadline:g} s"
            ) from late
        body, fault = read_body(endpoint, answer)
        return Reply(answer.status, body, fault)
