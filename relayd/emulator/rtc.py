"""The emulator's real-time transport: WHIP in, WHEP out.

A publisher posts its offer to `/rtc/{channel}/{front_user_id}/whip` (RFC 9725), a player to
`/rtc/{channel}/{algorithm_user_id}/whep` (draft-ietf-wish-whep); the bearer token of both is
the session's `front_rtc_token`. Sound is taken where it is offered, and
returned where it is asked for and a fault of stage SOUND says what. Browsers may connect from
any origin: the token authorises them.
"""

import asyncio
import math
import secrets
from collections.abc import Coroutine, Mapping
from functools import partial

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from relayd import logs
from relayd.emulator.answers import Handler, with_faults
from relayd.emulator.faults import FaultBoard
from relayd.emulator.sessions import Connection, Role, Session, SessionStore
from relayd.emulator.sound import SoundReturn
from relayd.emulator.swap import SourceFace
from relayd.errors import JoinRefused
from relayd.logs import LogEvent
from relayd.media.frames import Geometry
from relayd.rtc.webrtc.engine import LARGEST_SDP, PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer

SDP = "application/sdp"
GEOMETRY = Geometry(640, 480)
"""What the service recommends; pictures of another size are returned in their own size."""
FPS = 20.0
BITRATE_KBIT = 5000
"""The service's recommended track configuration."""
SOUND_BEHIND = 0.05
"""s that sound comes after its picture: a packet of Opus lasts 20 ms, and waits for 30 ms."""
CONNECT_TIMEOUT = 15.0
"""s from an offer to the connection, after which it is dropped."""
_GONE = {PeerState.DISCONNECTED, PeerState.FAILED}
_ROLES = {"whip": Role.PUBLISHER, "whep": Role.PLAYER}
_DIRECTIONS = {
    Role.PUBLISHER: {"a=sendonly", "a=sendrecv"},
    Role.PLAYER: {"a=recvonly"},
}


class Refusal(Exception):
    """Ends a request with an HTTP status and a message."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.response = PlainTextResponse(why + "\n", status, headers)


class RtcGate:
    """The WHIP and WHEP endpoints over the session store."""

    def __init__(self, sessions: SessionStore[SourceFace], faults: FaultBoard) -> None:
        self._sessions, self._faults = sessions, faults
        self._closing_tasks: set[asyncio.Task[None]] = set()
        self._returning_sound: set[asyncio.Task[None]] = set()

    def routes(self) -> Mount:
        """Return everything below /rtc."""
        routes: list[Route] = []
        for name, role in _ROLES.items():
            endpoint = f"/{{channel}}/{{user}}/{name}"
            join = with_faults(self._faults, name, _refusable(partial(self._join, role)))
            leave = _refusable(partial(self._leave, role))
            routes += [
                Route(endpoint, join, methods=["POST"]),
                Route(endpoint, _options, methods=["OPTIONS"]),
                Route(endpoint + "/{connection}", leave, methods=["DELETE"]),
                Route(endpoint + "/{connection}", _no_patch, methods=["PATCH"]),
            ]
        anyone = Middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_methods=["POST", "DELETE", "PATCH", "OPTIONS"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location"],
        )
        return Mount("/rtc", routes=routes, middleware=[anyone])

    async def close(self) -> None:
        """Wait for the connections that are being freed."""
        await asyncio.gather(*self._closing_tasks, *self._returning_sound)

    async def _join(self, role: Role, request: Request) -> Response:
        session = self._admitted(role, request)
        if _media_type(request) != SDP:
            raise Refusal(415, f"The offer must be {SDP}", {"Accept-Post": SDP})
        if (left := self._sessions.queue_left(session)) > 0:
            wait = {"Retry-After": str(math.ceil(left))}
            raise Refusal(503, "The session is still queuing", wait)
        offer = await _offer(role, request)
        connection, peer = self._new_connection(role, session)
        try:
            answer = await peer.answer(offer)
        except JoinRefused as fault:
            await peer.close()
            raise Refusal(400, fault.message) from fault
        if session.ended is not None:
            await peer.close()
            raise Refusal(404, "No such channel")
        if isinstance(connection.sound, SoundReturn) and peer.has_sound:
            _kept(self._returning_sound, connection.sound.run())
        await self._sessions.connect(session, connection)
        logs.get("emulator").info(LogEvent.EMULATOR_JOINED, session=session.id, role=role.value)
        location = {"Location": f"{request.url.path.rstrip('/')}/{connection.id}"}
        return Response(answer, 201, location, media_type=SDP)

    async def _leave(self, role: Role, request: Request) -> Response:
        session = self._admitted(role, request)
        wanted = request.path_params["connection"]
        for connection in session.of_role(role):
            if connection.id == wanted:
                await self._sessions.disconnect(session, connection)
                return Response(status_code=200)
        raise Refusal(404, "No such connection")

    def _admitted(self, role: Role, request: Request) -> Session[SourceFace]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal(401, "A bearer token is needed", {"WWW-Authenticate": "Bearer"})
        session = self._sessions.of_channel(request.path_params["channel"])
        if session is None:
            raise Refusal(404, "No such channel")
        if not secrets.compare_digest(token.strip().encode(), session.token.encode()):
            raise Refusal(403, "The token is not this channel's")
        user = session.front_user_id if role is Role.PUBLISHER else session.algorithm_user_id
        if request.path_params["user"] != user:
            raise Refusal(404, f"The {role.value}'s user is {user} in this channel")
        return session

    def _new_connection(
        self, role: Role, session: Session[SourceFace]
    ) -> tuple[Connection, AiortcPeer]:
        def free() -> None:
            _kept(self._closing_tasks, self._sessions.disconnect(session, connection))

        def on_state(state: PeerState) -> None:
            if state in _GONE:
                free()

        def free_unless_connected() -> None:
            if peer.state is not PeerState.CONNECTED:
                free()

        engine = session.engine if role is Role.PUBLISHER else None
        peer = AiortcPeer(
            geometry=GEOMETRY,
            fps=FPS,
            bitrate_kbit=BITRATE_KBIT,
            on_state=on_state,
            on_picture=engine.put if engine is not None else None,
            on_sound=session.hear if role is Role.PUBLISHER else None,
            sends_sound=role is Role.PLAYER,
        )
        sound = None
        if role is Role.PLAYER:
            sound = SoundReturn(
                session.id,
                peer,
                self._faults,
                lambda: session.picture_delay,
                behind=SOUND_BEHIND,
            )
        connection = Connection(secrets.token_hex(16), role, peer, sound)
        asyncio.get_running_loop().call_later(CONNECT_TIMEOUT, free_unless_connected)
        return connection, peer


def _kept(tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
    """Run `work` as a task that is in `tasks` until it is done."""
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _refusable(work: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await work(request)
        except Refusal as refusal:
            return refusal.response

    return answer


async def _offer(role: Role, request: Request) -> str:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LARGEST_SDP:
            raise Refusal(413, f"An offer may have {LARGEST_SDP} bytes")
    offer = raw.decode("utf-8", "replace")
    lines = {line.strip() for line in offer.splitlines()}
    if "v=0" in lines and not ("\nm=video " in offer and lines & _DIRECTIONS[role]):
        wanted = " or ".join(sorted(_DIRECTIONS[role]))
        raise Refusal(422, f"A {role.value}'s offer needs video, {wanted}")
    return offer


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _options(_request: Request) -> Response:
    return Response(status_code=200, headers={"Accept-Post": SDP, "Allow": "POST, OPTIONS"})


async def _no_patch(_request: Request) -> Response:
    """Neither trickle ICE nor ICE restarts: RFC 9725 §4.3 requires 501 instead of 405."""
    return PlainTextResponse("Neither trickle ICE nor ICE restarts are supported\n", 501)
