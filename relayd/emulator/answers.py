"""Carries out the faults of stage ANSWER around an endpoint.

It also reads a request's JSON, so that an answer can repeat any part of it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from relayd.emulator.faults import FaultBoard, Options, Stage

Handler = Callable[[Request], Awaitable[Response]]
Work = Callable[[], Awaitable[Response]]

GARBAGE = b'\x00\xff{"code": 1000, "data": {"_id": "'
"""Neither UTF-8 nor JSON, but it begins like JSON."""


class CutResponse(Response):
    """Announces a whole body, sends half of it and closes the connection."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer as ASGI requires, but without the final message."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


def json_of(raw: bytes | bytearray) -> Any:
    """Parse JSON; ValueError if it is invalid, nested too deep, or cannot be sent back.

    Python accepts NaN and lone surrogates, which an answer cannot contain.
    """
    try:
        value = json.loads(raw)
        JSONResponse(value)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value


def with_faults(board: FaultBoard, endpoint: str, handler: Handler) -> Handler:
    """Wrap a handler, so that the faults set for `endpoint` affect its answers."""

    async def answer(request: Request) -> Response:
        work: Work = partial(handler, request)
        for fault in board.take(Stage.ANSWER, endpoint=endpoint):
            work = partial(_ACTS[fault.act], fault.options, work)
        return await work()

    return answer


async def _refuse(options: Options, _work: Work) -> Response:
    return JSONResponse({"code": options["code"], "msg": options["msg"]})


async def _http_status(options: Options, _work: Work) -> Response:
    status, wait = options["status"], options["retry_after"]
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return HTMLResponse(page, status, {"Retry-After": str(wait)} if wait else None)


async def _slow(options: Options, work: Work) -> Response:
    response = await work()
    await asyncio.sleep(options["delay"])
    return response


async def _cut(_options: Options, work: Work) -> Response:
    done = await work()
    return CutResponse(done.body, done.status_code, media_type=done.media_type)


async def _garbage(_options: Options, work: Work) -> Response:
    await work()
    return Response(GARBAGE, media_type="application/json")


async def _old_shape(_options: Options, work: Work) -> Response:
    response = await work()
    if response.media_type != JSONResponse.media_type:
        return response
    return JSONResponse(_reshaped(json.loads(bytes(response.body))), response.status_code)


def _reshaped(body: Mapping[str, Any]) -> Mapping[str, Any]:
    if faces := body.get("faces_obj"):
        first = faces["0"]
        flat = {"landmarks_str": first["landmarks_str"], "region": first["region"]}
        return {"error_code": body["error_code"], "error_msg": body["error_msg"], **flat}
    data = body.get("data")
    if isinstance(data, dict) and "token" in data:
        return {"code": body["code"], "token": data["token"]}
    return body


_ACTS: Mapping[str, Callable[[Options, Work], Awaitable[Response]]] = {
    "refuse": _refuse,
    "http_status": _http_status,
    "slow": _slow,
    "cut": _cut,
    "garbage": _garbage,
    "old_shape": _old_shape,
}
