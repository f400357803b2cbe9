"""The emulator's sessions: from create to close, with the engine and the connections of each.

A session is billed while it is open, so unused ones are ended: sweep() ends a session without
connections for `join_timeout`, or one older than `longest`.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum, StrEnum
from statistics import median
from typing import Generic, Protocol

from relayd import logs
from relayd.clock import Clock
from relayd.emulator.engine import AnyFace, EngineFigures, SwapEngine, Swapper
from relayd.errors import SessionUnknown
from relayd.logs import LogEvent
from relayd.media.frames import I420
from relayd.sound.blocks import Samples

UNKNOWN_SESSION = 1008
"""The service's code for content that does not exist."""
_DELAYS = 20
"""Pictures whose delay is remembered: 1 s at 20 fps."""
KEPT_ENDED = 200
"""Ended sessions kept for status requests."""


class SessionStatus(IntEnum):
    """The service's `faceswap_status`."""

    QUEUING = 1
    """Created; no engine has taken it yet, and the channel cannot be joined."""
    PROCESSING = 2
    """An engine is in the channel; a client with the token may join."""
    SUCCESS = 3
    """Ended normally."""
    FAILED = 4
    """Given up by the service."""


class EndReason(StrEnum):
    """Why a session is over."""

    CLOSED = "closed"
    """The caller closed it."""
    ABANDONED = "abandoned"
    """Nothing was connected for as long as the rules allow."""
    TOO_OLD = "too_old"
    """It reached the maximum age of a session."""
    ENGINE_FAILED = "engine_failed"
    """The swap engine broke."""
    FAULT = "fault"
    """A fault was set."""
    SHUTDOWN = "shutdown"
    """The emulator stops."""


class Role(Enum):
    """What a connection does in a channel."""

    PUBLISHER = "publisher"
    """Brings the pictures to be swapped; a channel has one at most."""
    PLAYER = "player"
    """Takes the swapped pictures away."""


class PeerLike(Protocol):
    """What a session needs from an RTC connection."""

    def push(self, picture: I420, captured_at: float) -> None:
        """Send a picture; from any thread."""

    async def close(self) -> None:
        """Close the connection and free everything."""

    async def vanish(self) -> None:
        """Free everything without closing the connection."""


class SoundSink(Protocol):
    """What a session needs from the way of sound back to a player."""

    sent: int
    """Blocks."""

    def put(self, samples: Samples, received_at: float) -> None:
        """Add a block that the publisher sent."""


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """One RTC connection of a channel."""

    id: str
    role: Role
    peer: PeerLike
    sound: SoundSink | None = None
    """What returns sound to a player that takes it."""


@dataclass(frozen=True, slots=True)
class SessionRules:
    """Durations and limits, in seconds."""

    queue_seconds: float = 1.0
    """From create to status 2."""
    join_timeout: float = 300.0
    """A session without any connection for this long is ended."""
    longest: float = 4 * 3600.0
    """A session older than this is ended."""


class Session(Generic[AnyFace]):
    """One session; changed on the event loop only, except that its engine delivers pictures."""

    front_user_id = "1"
    """Publishes, and has the token."""
    algorithm_user_id = "3"
    """Publishes what the engine made; the service's example has these two ids."""

    def __init__(self, created_at: float, ready_at: float) -> None:
        self.id = f"{int(time.time()):08x}{secrets.token_hex(8)}"  # 24 hex digits, as an ObjectId
        self.token = "007eJx" + secrets.token_urlsafe(150)
        now = datetime.now(UTC)
        self.channel_id = (
            f"{now:%Y%m%d%H%M%S}{now.microsecond // 1000:03d}_{secrets.randbelow(10_000):04d}"
        )
        self.created_at, self.ready_at = created_at, ready_at
        self.engine: SwapEngine[AnyFace] | None = None
        self.figures = EngineFigures()
        self.connections: tuple[Connection, ...] = ()
        self.idle_since: float | None = created_at
        self.charged_until = created_at
        self.frames_out = 0
        self._picture_delays: deque[float] = deque(maxlen=_DELAYS)
        self.sound_in = 0
        """Blocks of 10 ms that the publisher sent."""
        self.ended: tuple[SessionStatus, EndReason, float] | None = None

    def status(self, now: float) -> SessionStatus:
        """Return the session's status at `now`, monotonic seconds."""
        if self.ended is not None:
            return self.ended[0]
        return SessionStatus.QUEUING if now < self.ready_at else SessionStatus.PROCESSING

    def of_role(self, role: Role) -> list[Connection]:
        """Return the connections with this role."""
        return [one for one in self.connections if one.role is role]

    @property
    def picture_delay(self) -> float:
        """Seconds that pictures are here before they go back: the median of the last 20."""
        delays = list(self._picture_delays)
        return median(delays) if delays else 0.0

    def deliver(self, picture: I420, captured_at: float) -> None:
        """Send a picture to every player; from the engine's thread."""
        self._picture_delays.append(time.monotonic() - captured_at)
        for player in self.of_role(Role.PLAYER):
            player.peer.push(picture, captured_at)
            self.frames_out += 1

    def hear(self, samples: Samples, received_at: float) -> None:
        """Take a block of the publisher's sound; players may get it back."""
        self.sound_in += 1
        for player in self.of_role(Role.PLAYER):
            if player.sound is not None:
                player.sound.put(samples, received_at)

    @property
    def sound_out(self) -> int:
        """Blocks of 10 ms that the present players got."""
        return sum(one.sound.sent for one in self.connections if one.sound is not None)


AlterPicture = Callable[[str, I420, I420], I420 | None]
"""Takes session id, source and swapped picture; returns what to send, or None to send nothing."""


class SessionStore(Generic[AnyFace]):
    """All sessions, open and recently ended; used from one event loop."""

    def __init__(
        self,
        rules: SessionRules,
        *,
        clock: Clock,
        executor: Executor,
        make_swapper: Callable[[AnyFace], Swapper[AnyFace]],
        alter_picture: AlterPicture,
        charge: Callable[[float], None],
    ) -> None:
        self.rules, self._clock, self._executor = rules, clock, executor
        self._make_swapper, self._alter_picture, self._charge = make_swapper, alter_picture, charge
        self._sessions: OrderedDict[str, Session[AnyFace]] = OrderedDict()
        self._end_tasks: set[asyncio.Task[None]] = set()

    def create(self, face: AnyFace, queue_seconds: float) -> Session[AnyFace]:
        """Open a session and start its engine; it can be joined after `queue_seconds`."""
        now = self._clock.now()
        session: Session[AnyFace] = Session(now, now + queue_seconds)
        loop = asyncio.get_running_loop()

        def deliver(source: I420, swapped: I420, captured_at: float) -> None:
            shown = self._alter_picture(session.id, source, swapped)
            if shown is not None:
                session.deliver(shown, captured_at)

        def give_up(_fault: Exception) -> None:
            loop.call_soon_threadsafe(self._end_failed, session)

        session.engine = SwapEngine(session.id, face, self._make_swapper, deliver, give_up)
        session.figures = session.engine.figures
        session.engine.start()
        self._sessions[session.id] = session
        logs.get("emulator").info(
            LogEvent.EMULATOR_SESSION_CREATED, session=session.id, queue_s=queue_seconds
        )
        return session

    def get(self, session_id: str) -> Session[AnyFace]:
        """Return the session of that id, open or ended; SessionUnknown when there is none."""
        if session := self._sessions.get(session_id):
            return session
        raise SessionUnknown("The session does not exist", code=UNKNOWN_SESSION)

    def status(self, session: Session[AnyFace]) -> SessionStatus:
        """Return the session's status now."""
        return session.status(self._clock.now())

    def queue_left(self, session: Session[AnyFace]) -> float:
        """Return the seconds until the session can be joined; 0 or less when it can."""
        return session.ready_at - self._clock.now()

    def age(self, session: Session[AnyFace]) -> float:
        """Return the seconds that the session has been, or was, open."""
        return (session.ended[2] if session.ended else self._clock.now()) - session.created_at

    def ended(self) -> list[Session[AnyFace]]:
        """Return the ended sessions that are still kept, the oldest first."""
        return [one for one in self._sessions.values() if one.ended is not None]

    def of_channel(self, channel_id: str) -> Session[AnyFace] | None:
        """Return the open session of that channel."""
        return next((one for one in self.open() if one.channel_id == channel_id), None)

    def open(self) -> list[Session[AnyFace]]:
        """Return the open sessions, the oldest first."""
        return [one for one in self._sessions.values() if one.ended is None]

    def update(self, session_id: str, face: AnyFace) -> None:
        """Change the face of an open session from its next picture on."""
        session = self.get(session_id)
        if session.ended is not None or session.engine is None:
            raise SessionUnknown("The session is over", code=UNKNOWN_SESSION)
        session.engine.set_face(face)

    async def connect(self, session: Session[AnyFace], connection: Connection) -> None:
        """Add a connection; a second publisher replaces the first one."""
        replaced = session.of_role(Role.PUBLISHER) if connection.role is Role.PUBLISHER else []
        session.connections = (*session.connections, connection)
        session.idle_since = None
        for old in replaced:
            await self.disconnect(session, old)

    async def disconnect(self, session: Session[AnyFace], connection: Connection) -> None:
        """Close a connection and remove it; may be called again."""
        session.connections = tuple(one for one in session.connections if one is not connection)
        if not session.connections and session.idle_since is None:
            session.idle_since = self._clock.now()
        await connection.peer.close()

    async def drop_rtc(self, session: Session[AnyFace]) -> None:
        """Drop every connection of a session without closing it; the session stays open."""
        dropped, session.connections = session.connections, ()
        session.idle_since = self._clock.now()
        await asyncio.gather(*(one.peer.vanish() for one in dropped))

    async def end(
        self, session: Session[AnyFace], status: SessionStatus, reason: EndReason
    ) -> None:
        """End a session: stop its engine, close its connections. Does nothing if it has ended."""
        if session.ended is not None:
            return
        now = self._clock.now()
        self._charge(now - session.charged_until)
        session.ended = (status, reason, now)
        logs.get("emulator").info(
            LogEvent.EMULATOR_SESSION_ENDED, session=session.id, reason=reason.value
        )
        engine, session.engine = session.engine, None  # frees the face, half a megabyte
        if engine is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, engine.stop)
        connections, session.connections = session.connections, ()
        await asyncio.gather(*(one.peer.close() for one in connections))
        for forgotten in self.ended()[:-KEPT_ENDED]:
            del self._sessions[forgotten.id]

    async def sweep(self) -> None:
        """Charge for the elapsed time, and end abandoned or too old sessions."""
        now = self._clock.now()
        for session in self.open():
            self._charge(now - session.charged_until)
            session.charged_until = now
            idle = 0.0 if session.idle_since is None else now - session.idle_since
            if now - session.created_at >= self.rules.longest:
                await self.end(session, SessionStatus.SUCCESS, EndReason.TOO_OLD)
            elif idle >= self.rules.join_timeout:
                await self.end(session, SessionStatus.SUCCESS, EndReason.ABANDONED)

    async def close(self) -> None:
        """End all sessions and wait for every engine and connection to be gone."""
        for session in self.open():
            await self.end(session, SessionStatus.SUCCESS, EndReason.SHUTDOWN)
        await asyncio.gather(*self._end_tasks)

    def _end_failed(self, session: Session[AnyFace]) -> None:
        task = asyncio.ensure_future(
            self.end(session, SessionStatus.FAILED, EndReason.ENGINE_FAILED)
        )
        self._end_tasks.add(task)
        task.add_done_callback(self._end_tasks.discard)
