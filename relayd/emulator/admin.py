"""The emulator's admin interface: its state, faults, images, and a web page.

- `GET /emulator/state` sessions, faults, credit as JSON
- `GET|POST|DELETE /emulator/faults`, `DELETE /emulator/faults/ID` see relayd.emulator.faults
- `POST /emulator/reset` clears faults, ends all sessions, resets the credit
- `POST /emulator/images` takes an image file as its body, returns `{"url": …}`
- `GET /emulator/images/NAME` returns it; open to all, as the service fetches it
- `GET /` the page

All but the last two are only for callers on this machine, unless `admin_anywhere` is set.
Bodies must have a JSON Content-Type and the Host header must name this machine, so that no
foreign web page can send a request, or read an answer after DNS rebinding.
"""

from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from relayd.control.guard import names_us
from relayd.emulator.account import Account
from relayd.emulator.answers import Handler, json_of
from relayd.emulator.faults import FAULTS, ActiveFault, FaultBoard, Stage
from relayd.emulator.images import LARGEST_IMAGE, ImageStore
from relayd.emulator.page import render
from relayd.emulator.sessions import EndReason, Role, Session, SessionStatus, SessionStore
from relayd.emulator.swap import SourceFace
from relayd.errors import FaceRejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

LARGEST_JSON = 64 * 1024
"""Bytes of a JSON body."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Admin:
    """The endpoints below /emulator, and the page."""

    account: Account
    sessions: SessionStore[SourceFace]
    faults: FaultBoard
    images: ImageStore
    anywhere: bool

    def routes(self) -> list[Route]:
        """Return the paths of the admin interface."""
        endpoints: list[tuple[str, str, Handler]] = [
            ("GET", "/emulator/state", self._state),
            ("GET", "/emulator/faults", self._list_faults),
            ("POST", "/emulator/faults", self._set_fault),
            ("DELETE", "/emulator/faults", self._clear_faults),
            ("DELETE", "/emulator/faults/{id:int}", self._clear_faults),
            ("POST", "/emulator/reset", self._reset),
            ("POST", "/emulator/images", self._put_image),
        ]
        return [
            *(
                Route(path, self._guarded(work), methods=[method])
                for method, path, work in endpoints
            ),
            Route("/emulator/images/{name}", self._get_image, methods=["GET"]),
            Route("/", self._page, methods=["GET"]),
        ]

    def _admits(self, request: Request) -> bool:
        from_here = request.client is not None and _is_loopback(request.client.host)
        return self.anywhere or (from_here and names_us(request.headers.get("host", "")))

    def _guarded(self, work: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if not self._admits(request):
                return _problem(403, "only from this machine; --admin-anywhere opens it")
            try:
                return await work(request)
            except (UsageError, FaceRejected) as fault:
                return _problem(400, fault.message)

        return answer

    async def _state(self, _request: Request) -> Response:
        return JSONResponse(self._snapshot())

    def _snapshot(self) -> Json:
        return {
            "credit": round(self.account.credit, 2),
            "sessions": [self._described(one) for one in self.sessions.open()],
            "ended": [self._described(one) for one in self.sessions.ended()],
            "faults": [_fault_described(one) for one in self.faults.active()],
        }

    def _described(self, session: Session[SourceFace]) -> Json:
        return {
            "_id": session.id,
            "channel_id": session.channel_id,
            "faceswap_status": int(self.sessions.status(session)),
            "end_reason": session.ended[1].value if session.ended is not None else None,
            "age_seconds": round(self.sessions.age(session), 2),
            "publishers": len(session.of_role(Role.PUBLISHER)),
            "players": len(session.of_role(Role.PLAYER)),
            **asdict(session.figures),
            "frames_out": session.frames_out,
            "sound_in": session.sound_in,
            "sound_out": session.sound_out,
        }

    async def _list_faults(self, _request: Request) -> Response:
        known = {
            name: {"stage": kind.stage.value, "meaning": kind.meaning, "options": kind.options}
            for name, kind in FAULTS.items()
        }
        active = [_fault_described(one) for one in self.faults.active()]
        return JSONResponse({"active": active, "known": known})

    async def _set_fault(self, request: Request) -> Response:
        try:
            request_body = json_of(await _read(request, LARGEST_JSON, "application/json"))
        except ValueError as error:
            raise UsageError("the body is no JSON") from error
        fault = self.faults.set(request_body)
        if fault.kind.stage is Stage.AT_ONCE:
            return JSONResponse({"fault": fault.name, "sessions": await self._carry_out(fault)})
        return JSONResponse(_fault_described(fault), 201)

    async def _carry_out(self, fault: ActiveFault) -> list[str]:
        """Carry out a fault of stage AT_ONCE; returns the affected sessions."""
        if fault.name == "expire_tokens":
            self.account.expire_tokens()
            return []
        end = self.sessions.end
        acts: Mapping[str, Callable[[Session[SourceFace]], Awaitable[None]]] = {
            "drop_rtc": self.sessions.drop_rtc,
            "end_session": partial(end, status=SessionStatus.SUCCESS, reason=EndReason.FAULT),
            "fail_session": partial(end, status=SessionStatus.FAILED, reason=EndReason.FAULT),
        }
        affected = [one for one in self.sessions.open() if fault.session in {"", one.id}]
        for session in affected:
            await acts[fault.name](session)
        return [one.id for one in affected]

    async def _clear_faults(self, request: Request) -> Response:
        cleared = self.faults.clear(request.path_params.get("id"))
        return JSONResponse({"cleared": cleared})

    async def _reset(self, request: Request) -> Response:
        await _read(request, LARGEST_JSON, "application/json")
        self.faults.clear()
        for session in self.sessions.open():
            await self.sessions.end(session, SessionStatus.SUCCESS, EndReason.FAULT)
        self.account.reset()
        return JSONResponse(self._snapshot())

    async def _put_image(self, request: Request) -> Response:
        name = self.images.put(await _read(request, LARGEST_IMAGE, "image/"))
        return JSONResponse({"url": f"{request.base_url}emulator/images/{name}"}, 201)

    async def _get_image(self, request: Request) -> Response:
        image = self.images.get(request.path_params["name"])
        if image is None:
            return _problem(404, "no such image")
        return Response(image.body, media_type=image.media_type)

    async def _page(self, request: Request) -> Response:
        base = escape(str(request.base_url).rstrip("/"), quote=True)
        return HTMLResponse(render(base, self._snapshot() if self._admits(request) else None))


def _fault_described(fault: ActiveFault) -> Json:
    return {
        "id": fault.id,
        "fault": fault.name,
        **fault.options,
        "endpoint": fault.endpoint,
        "session": fault.session,
        "calls_left": fault.calls_left,
        "acted": fault.acted,
    }


def _problem(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)


async def _read(request: Request, largest: int, media_type: str) -> bytes:
    if not request.headers.get("content-type", "").lower().startswith(media_type):
        raise UsageError(f"the Content-Type must begin with {media_type}")
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > largest:
            raise UsageError(f"the body may have {largest} bytes")
    return bytes(raw)


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
