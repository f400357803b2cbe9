"""The `webrtc` link: WHIP out (RFC 9725), WHEP in (draft-ietf-wish-whep).

Two legs, publish and play, run independently in one event loop on the thread
`relayd-webrtc`. A leg posts its offer, waits for the connection, keeps it until it breaks,
deletes the session, and starts again until its time is up.
"""

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import NoReturn

from relayd import logs
from relayd.clock import Backoff
from relayd.errors import JoinFailed, JoinRefused, LinkError, LinkLost
from relayd.http.client import HttpClient
from relayd.logs import LogEvent
from relayd.media.frames import I420
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkStats, LinkTarget
from relayd.rtc.webrtc import engines
from relayd.rtc.webrtc.engine import EngineName, Peer, PeerState, PeerStats, Unacceptable
from relayd.rtc.webrtc.signalling import NotNow, Resource, delete, post_offer
from relayd.sound.blocks import Samples
from relayd.urls.safe import MediaUrl

POST_TIMEOUT = 10.0
"""s for a server to answer an offer; one that starts its engine first takes a while."""
CONNECT_TIMEOUT = 8.0
"""s from the answer to the first packet: ICE and DTLS take tens of ms if there is a path."""
DELETE_TIMEOUT = 1.0
"""s that deleting an old session may delay the next one."""
FIRST_RETRY, LONGEST_RETRY = 0.25, 3.0
"""s between attempts; a restarted server is found again within this."""
STATS_INTERVAL = 2.0
"""s between two STATS events."""
CLOSE_TIMEOUT = 2.0
"""s to delete the sessions when the link ends without an order to leave."""

_OVER = {PeerState.DISCONNECTED, PeerState.FAILED, PeerState.CLOSED}

_log = logs.get("webrtc")


@dataclass(slots=True)
class _Leg:
    """One direction of the link."""

    name: str
    url: MediaUrl
    sends: bool
    wants_sound: bool
    sound: bool
    """Whether it offers sound: not any more after the server refused it."""
    engines: list[EngineName]
    """Those to use: the first one, until its offer is refused or its answer is unusable."""
    peer: Peer | None = None
    """The connection, while it is up."""
    was_up: bool = False


@dataclass(frozen=True, slots=True)
class _LegEnd:
    """How one attempt ended."""

    why: str
    up_for: float | None = None
    """s that it was up; None if it never was."""
    retry_after: float | None = None


class WebRtcLink:
    """A link to any WHIP/WHEP server with a swap engine behind it."""

    def __init__(
        self,
        target: LinkTarget,
        on_picture: Callable[[I420, float], None],
        on_event: Callable[[LinkEvent], None],
        on_sound: Callable[[Samples, float], None] | None = None,
    ) -> None:
        """Prepare; ConfigError for a wrong URL template, LibraryUnavailable without an engine."""
        self._target = target
        self._engines = engines.installed(target.engine)
        self._on_picture, self._on_event, self._on_sound = on_picture, on_event, on_sound
        self._publish = self._leg("publish", target.publish_endpoint(), target.publish_sound)
        self._play = self._leg("play", target.play_endpoint(), target.return_sound)
        self._thread = threading.Thread(target=self._run_loop, name="relayd-webrtc")
        self._running = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._leave_by: float | None = None
        self._broken: set[str] = set()
        self._has_published = self._has_played = False

    def _leg(self, name: str, url: str, sound: bool) -> _Leg:  # noqa: FBT001 - of two callers
        return _Leg(name, MediaUrl(url), name == "publish", sound, sound, list(self._engines))

    def join(self) -> None:
        """Begin to join and return at once; events report the rest."""
        self._thread.start()

    def publish(self, picture: I420, captured_at: float) -> None:
        """Send `picture` if the publishing leg is up; never blocks."""
        peer = self._publish.peer
        if peer is None:
            return
        peer.push(picture, captured_at)
        if not self._has_published:
            self._has_published = True
            self._on_event(LinkEvent(LinkEventKind.PUBLISHING))

    def publish_sound(self, samples: Samples, at: float) -> None:
        """Send a block if the publishing leg is up and its server takes sound; never blocks."""
        if (peer := self._publish.peer) is not None:
            peer.push_sound(samples, at)

    def renew(self, token: str) -> None:
        """Use `token` at the next offer; open connections need none."""
        self._target = replace(self._target, token=token)

    def leave(self, deadline: float) -> None:
        """End both sessions on the server and free everything, by `deadline`; blocks."""
        if not self._thread.is_alive():
            return
        self._leave_by = deadline
        self._running.wait(max(0.0, deadline - time.monotonic()))
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed: it is over already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run_loop(self) -> None:
        try:
            final_event = asyncio.run(self._run_legs())
        except Exception:  # noqa: BLE001 - a thread must report
            _log.exception(LogEvent.LINK_BROKEN)
            final_event = LinkEvent(
                LinkEventKind.LOST, error=LinkLost("the link broke; see the log")
            )
        gc.collect()  # a connection that was cancelled half made keeps threads until then
        self._on_event(final_event)

    async def _run_legs(self) -> LinkEvent:
        """Keep both legs up until told to leave, or one gives up; return the last event."""
        self._loop = asyncio.get_running_loop()
        self._running.set()
        async with HttpClient() as http:
            stop = asyncio.ensure_future(self._stop.wait())
            legs = [
                asyncio.ensure_future(self._maintain(leg, http))
                for leg in (self._publish, self._play)
            ]
            stats = asyncio.ensure_future(self._report())
            work = [stop, *legs, stats]
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        if stop in done:
            return LinkEvent(LinkEventKind.LEFT)
        for task in done:
            fault = task.exception()
            if isinstance(fault, LinkError):
                kind = LinkEventKind.LOST if fault.retryable else LinkEventKind.REFUSED
                return LinkEvent(kind, error=fault)
            if fault is not None:
                raise fault
        raise AssertionError("only an error or the order to leave ends a link")

    async def _maintain(self, leg: _Leg, http: HttpClient) -> NoReturn:
        """Keep one leg up; raises JoinRefused, JoinFailed or LinkLost when it gives up."""
        backoff = Backoff(FIRST_RETRY, LONGEST_RETRY)
        give_up = time.monotonic() + self._target.first_frame_timeout
        while True:
            ended = await self._connect_once(leg, http)
            now = time.monotonic()
            if ended.up_for is not None:
                give_up = now + self._target.recovery_timeout
                self._broken.add(leg.name)
                reason = f"{leg.name}: {ended.why}"
                self._on_event(LinkEvent(LinkEventKind.DEGRADED, reason))
            if now >= give_up:
                error = LinkLost if leg.was_up else JoinFailed
                raise error(f"{leg.name}: {ended.why}")
            _log.info(LogEvent.LINK_RETRY, leg=leg.name, reason=ended.why)
            wait = max(backoff.next_wait(ended.up_for or 0.0), ended.retry_after or 0.0)
            await asyncio.sleep(min(wait, give_up - now))

    async def _connect_once(self, leg: _Leg, http: HttpClient) -> _LegEnd:
        """Open one session and keep it until it ends; JoinRefused when the server refuses it."""
        states: asyncio.Queue[PeerState] = asyncio.Queue()
        peer = engines.load(leg.engines[0])(
            geometry=self._target.geometry,
            fps=self._target.fps,
            bitrate_kbit=self._target.bitrate_kbit,
            on_state=states.put_nowait,
            on_picture=None if leg.sends else self._take_picture,
            on_sound=self._on_sound if leg.sound and not leg.sends else None,
            sends_sound=leg.sound and leg.sends,
        )
        resource: Resource | None = None
        try:
            offer = await (peer.offer_sending() if leg.sends else peer.offer_receiving())
            try:
                answer = await self._post(leg, http, offer)
            except JoinRefused as fault:
                if (retry := self._other_offer(leg, fault)) is None:
                    raise
                return retry
            if isinstance(answer, NotNow):
                return self._declined(leg, answer)
            resource = answer
            return await self._hold(leg, peer, states, answer.answer)
        except JoinFailed as fault:
            return _LegEnd(fault.message)
        finally:
            leg.peer = None
            await asyncio.gather(self._delete(http, resource), peer.close())

    async def _hold(
        self, leg: _Leg, peer: Peer, states: "asyncio.Queue[PeerState]", answer: str
    ) -> _LegEnd:
        """Connect, then wait for the end."""
        name = leg.url
        try:
            await peer.accept_answer(answer)
        except JoinRefused as fault:  # accepted, but with an invalid answer: try again
            unusable = Unacceptable(f"{name}: {fault.message}")
            return self._other_offer(leg, unusable) or _LegEnd(unusable.message)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while (state := await states.get()) is not PeerState.CONNECTED:
                    if state in _OVER:
                        return _LegEnd(f"{name} was reached, but no network path to its media")
        except TimeoutError:
            return _LegEnd(f"{name}: no media connection within {CONNECT_TIMEOUT:g} s")
        since = time.monotonic()
        self._came_up(leg, peer)
        while await states.get() not in _OVER:
            pass
        return _LegEnd("the connection ended", up_for=time.monotonic() - since)

    async def _post(self, leg: _Leg, http: HttpClient, offer: str) -> Resource | NotNow:
        """Post the offer. If cancelled meanwhile, wait for the answer, to delete that session."""
        token = self._target.token
        posting = asyncio.ensure_future(
            post_offer(http, leg.url.reveal(), offer, token, timeout=POST_TIMEOUT)
        )
        try:
            return await asyncio.shield(posting)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, LinkError):
                async with asyncio.timeout(self._seconds_to_close()):
                    resource = await posting
                    await self._delete(http, resource if isinstance(resource, Resource) else None)
            raise

    async def _delete(self, http: HttpClient, resource: Resource | None) -> None:
        if resource is not None:
            timeout = min(DELETE_TIMEOUT, self._seconds_to_close())
            await delete(http, resource, self._target.token, timeout=timeout)

    def _seconds_to_close(self) -> float:
        """Seconds left to delete sessions."""
        if self._leave_by is None:
            return CLOSE_TIMEOUT
        return max(0.05, self._leave_by - time.monotonic())

    def _declined(self, leg: _Leg, answer: NotNow) -> _LegEnd:
        if leg.sends and answer.status == HTTPStatus.NOT_FOUND:
            raise JoinRefused(f"{answer.why}: there is no such channel")
        # A player may come before the swap engine: then 404, 409 and 503 mean "not yet".
        return _LegEnd(answer.why, retry_after=answer.retry_after)

    def _other_offer(self, leg: _Leg, fault: JoinRefused) -> _LegEnd | None:
        """Change what the leg offers, as this offer was refused; None if all was tried."""
        if leg.sound:
            return self._without_sound(leg, fault.message)
        if not isinstance(fault, Unacceptable) or len(leg.engines) == 1:
            return None
        refused, leg.sound = leg.engines.pop(0), leg.wants_sound
        _log.warning(
            LogEvent.LINK_OTHER_ENGINE,
            leg=leg.name,
            refused=refused,
            engine=leg.engines[0],
            reason=fault.message,
        )
        return _LegEnd(fault.message)

    def _without_sound(self, leg: _Leg, why: str) -> _LegEnd:
        """Offer no sound any more: a server that takes none may refuse the whole offer."""
        leg.sound = False
        _log.warning(LogEvent.LINK_SOUND_REFUSED, leg=leg.name, reason=why)
        return _LegEnd(why)

    def _came_up(self, leg: _Leg, peer: Peer) -> None:
        leg.peer = peer
        if leg.sound and not peer.has_sound:
            _log.warning(LogEvent.LINK_SOUND_REFUSED, leg=leg.name, reason="the answer has none")
        if leg.sends:
            if not leg.was_up:
                library = engines.described(leg.engines[0])
                self._on_event(LinkEvent(LinkEventKind.JOINED, reason=library))
            self._repaired(leg)
        leg.was_up = True

    def _take_picture(self, picture: I420, received_at: float) -> None:
        if not self._has_played:
            self._has_played = True
            self._on_event(LinkEvent(LinkEventKind.FIRST_PICTURE))
        if self._broken:
            self._repaired(self._play)
        self._on_picture(picture, received_at)

    def _repaired(self, leg: _Leg) -> None:
        if leg.name in self._broken:
            self._broken.remove(leg.name)
            if not self._broken:
                self._on_event(LinkEvent(LinkEventKind.RECOVERED))

    async def _report(self) -> NoReturn:
        while True:
            await asyncio.sleep(STATS_INTERVAL)
            out, out_engine = await self._stats_of(self._publish)
            back, back_engine = await self._stats_of(self._play)
            stats = LinkStats(
                publish_kbit=out.bitrate_kbit,
                publish_lost=out.packets_lost,
                round_trip=out.round_trip,
                sent=out.pictures,
                dropped=out.pictures_dropped,
                play_kbit=back.bitrate_kbit,
                play_lost=back.packets_lost,
                play_jitter=back.jitter,
                received=back.pictures,
                publish_target_kbit=out.target_kbit,
                publish_jitter=out.jitter,
                play_freezes=back.freezes,
                publish_codec=out.codec,
                play_codec=back.codec,
                publish_path=out.path,
                play_path=back.path,
                publish_engine=out_engine,
                play_engine=back_engine,
            )
            self._on_event(LinkEvent(LinkEventKind.STATS, stats=stats))

    async def _stats_of(self, leg: _Leg) -> tuple[PeerStats, str]:
        """Return a leg's figures and its engine; nothing of both while it is not up."""
        peer, engine = leg.peer, leg.engines[0]
        return (await peer.stats(), engine) if peer else (PeerStats(), "")
