"""The face-swap service's HTTP API, with the same JSON shapes.

Sources: the service's Live Face Swap page for the five documented calls; `live/info` is not
documented but public clients poll it; `quota/info` is the page on credit. Business failures
are HTTP 200 with a `code` other than 1000, as at the service.
"""

import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relayd.emulator.account import Account
from relayd.emulator.answers import json_of, with_faults
from relayd.emulator.faces import FoundFace, detect_faces, prepare_face
from relayd.emulator.faults import FaultBoard, Stage
from relayd.emulator.images import PARAMETER_ERROR, ImageStore, fetch_image
from relayd.emulator.sessions import EndReason, Session, SessionStatus, SessionStore
from relayd.emulator.swap import SourceFace
from relayd.errors import RequestRefused, ServiceError
from relayd.http.client import HttpClient

SUCCESS = 1000
LARGEST_REQUEST = 1024 * 1024
"""Bytes of a JSON request."""

_V3 = "/api/open/v3"
_OPTS = re.compile(r"\d{1,5},\d{1,5}(:\d{1,5},\d{1,5})*")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AkoolApi:
    """The endpoints, and the objects they use."""

    account: Account
    sessions: SessionStore[SourceFace]
    faults: FaultBoard
    images: ImageStore
    executor: Executor
    http: HttpClient

    def routes(self) -> list[Route]:
        """Return the service's paths."""
        return [
            self._post("getToken", f"{_V3}/getToken", self._get_token, authorized=False),
            Route(
                "/interface/detect-api/detect_faces",
                with_faults(self.faults, "detect_faces", self._detect),
                methods=["POST"],
            ),
            self._post("create", f"{_V3}/faceswap/live/create", self._create),
            self._post("update", f"{_V3}/faceswap/live/update", self._update),
            self._post("close", f"{_V3}/faceswap/live/close", self._close),
            self._post("info", f"{_V3}/faceswap/live/info", self._info),
            Route(
                f"{_V3}/faceswap/quota/info",
                with_faults(self.faults, "quota", self._quota),
                methods=["GET"],
            ),
        ]

    def _post(
        self,
        name: str,
        path: str,
        work: Callable[[Json], Awaitable[Json | None]],
        *,
        authorized: bool = True,
    ) -> Route:
        async def answer(request: Request) -> Response:
            try:
                if authorized:
                    self.account.authorize(request.headers)
                return _enveloped(await work(await _body(request)))
            except ServiceError as fault:
                return _refused(fault)

        return Route(path, with_faults(self.faults, name, answer), methods=["POST"])

    async def _get_token(self, body: Json) -> Json:
        client_id, client_secret = _text(body, "clientId"), _text(body, "clientSecret")
        token, life = self.account.issue_token(client_id, client_secret)
        return {"token": token, "expire": int(time.time() + life)}

    async def _detect(self, request: Request) -> Response:
        try:
            self.account.authorize(request.headers)
        except ServiceError as fault:
            return _refused(fault)
        try:
            body = await _body(request)
            single = _flag(body, "single_face")
            with_urls = _flag(body, "return_face_url")
            image = await fetch_image(self.http, _text(body, "url"))
            found = await detect_faces(self.executor, image, single=single)
        except ServiceError as fault:
            return JSONResponse(
                {"error_code": fault.code, "error_msg": fault.message, "faces_obj": {}}
            )
        base = str(request.base_url)
        urls = [f"{base}emulator/images/{self.images.put(one.crop_png)}" for one in found]
        faces = _faces_object(found, urls if with_urls else [])
        return JSONResponse({"error_code": 0, "error_msg": "SUCCESS", "faces_obj": {"0": faces}})

    async def _create(self, body: Json) -> Json:
        self.account.require_credit()
        face = await self._source_face(body)
        affected = self.faults.take(Stage.CREATE, endpoint="create")
        queue = sum(fault.options.get("queue_seconds", 0.0) for fault in affected)
        session = self.sessions.create(face, self.sessions.rules.queue_seconds + queue)
        answer: Json = _described(session, SessionStatus.QUEUING)
        for fault in affected:
            answer |= fault.options.get("fields", {})
        return answer

    async def _update(self, body: Json) -> None:
        session_id = _text(body, "_id")
        self.sessions.get(session_id)
        self.sessions.update(session_id, await self._source_face(body))

    async def _close(self, body: Json) -> None:
        session = self.sessions.get(_text(body, "_id"))
        await self.sessions.end(session, SessionStatus.SUCCESS, EndReason.CLOSED)

    async def _info(self, body: Json) -> Json:
        session = self.sessions.get(_text(body, "_id"))
        return _described(session, self.sessions.status(session))

    async def _quota(self, request: Request) -> Response:
        try:
            self.account.authorize(request.headers)
        except ServiceError as fault:
            return _refused(fault)
        return _enveloped({"credit": round(self.account.credit, 2)})

    async def _source_face(self, body: Json) -> SourceFace:
        listed = body.get("sourceImage")
        if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
            raise _parameter_error("sourceImage")
        path, opts = _text(listed[0], "path"), _text(listed[0], "opts")
        if not _OPTS.fullmatch(opts):
            raise _parameter_error("sourceImage.opts")
        return await prepare_face(self.executor, await fetch_image(self.http, path), opts)


def _enveloped(data: Json | None) -> Response:
    envelope: Json = {"code": SUCCESS, "msg": "OK"}
    return JSONResponse(envelope if data is None else {**envelope, "data": data})


def _refused(fault: ServiceError) -> Response:
    return JSONResponse({"code": fault.code or PARAMETER_ERROR, "msg": fault.message})


def _described(session: Session[SourceFace], status: SessionStatus) -> Json:
    return {
        "_id": session.id,
        "faceswap_status": int(status),
        "front_user_id": session.front_user_id,
        "algorithm_user_id": session.algorithm_user_id,
        "front_rtc_token": session.token,
        "channel_id": session.channel_id,
        "app_id": "",  # as in the service's example
    }


def _faces_object(found: list[FoundFace], urls: list[str]) -> Json:
    return {
        "landmarks": [[list(point) for point in one.face.points] for one in found],
        "landmarks_str": [one.face.landmarks_str for one in found],
        "region": [list(one.face.region) for one in found],
        "frame_time": None,  # a still image has none
        "crop_region": [list(one.crop_region) for one in found],
        "crop_landmarks": [one.crop_landmarks for one in found],
        "face_urls": urls,
    }


async def _body(request: Request) -> Json:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LARGEST_REQUEST:
            raise _parameter_error("the request is too large")
    try:
        body = json_of(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _parameter_error("the request is no JSON object")
    return body


def _text(body: Json, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise _parameter_error(key)
    return value


def _flag(body: Json, key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise _parameter_error(key)
    return value


def _parameter_error(what: str) -> RequestRefused:
    return RequestRefused(
        f"Parameter error or parameter cannot be empty: {what}", code=PARAMETER_ERROR
    )
