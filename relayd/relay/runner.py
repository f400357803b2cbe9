"""Feeds events to the state machine and carries out its commands.

It is the only caller of the machine and lives in one event loop. Its only timer is the machine's;
nothing is polled.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from relayd.akool.session import FaceChoice
from relayd.errors import RelaydError
from relayd.logs import LogEvent, get
from relayd.media.frames import SourceFrame
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.commands import Command
from relayd.relay.events import Event
from relayd.relay.machine import Machine
from relayd.relay.parts import LinkParts
from relayd.relay.session_link import SessionLink
from relayd.sound.blocks import OwnSound

FAULT_RETRY = 5.0
"""s after an exception in the machine until it runs again: it may have lost its timer."""

_log = get("relay")


class Runner:
    """Carries out the commands of one machine, with the parts that its sessions share."""

    def __init__(
        self,
        machine: Machine,
        parts: LinkParts,
        *,
        on_report: Callable[[do.Report], None],
        steer_source: Callable[[bool], None],
        steer_voice: Callable[[bool], None],
    ) -> None:
        """Do nothing before the first event.

        `on_report` gets each state of the relay; `steer_source` opens the source (True) or
        releases it (False), `steer_voice` the voice's own device.
        """
        self.machine = machine
        self._parts = parts
        self._on_report = on_report
        self._steer_source, self._steer_voice = steer_source, steer_voice
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._links: dict[int, SessionLink] = {}
        self._sending: tuple[SessionLink, ...] = ()
        """Links that get source frames, for the pacer's thread."""
        self._closed_seconds = 0.0
        self._changed = asyncio.Event()
        self._faces: dict[asyncio.Task[RelaydError | None], do.UpdateFace] = {}
        """Face updates in progress."""
        self._closing: set[asyncio.Task[None]] = set()
        self.sent = 0
        """Source frames that the shown session accepted."""

    # Events.

    def attach_loop(self) -> None:
        """Use the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def post(self, event: Event) -> None:
        """Handle an event now; call it in the event loop."""
        self._inbox.append(event)
        if self._busy:  # answered while commands are carried out: handled after them
            return
        self._busy = True
        try:
            while self._inbox:
                self._handle(self._inbox.popleft())
        finally:
            self._busy = False
        self._changed.set()

    def post_from_thread(self, event: Event) -> None:
        """Handle an event soon; may be called in any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.post, event)

    async def until_idle(self) -> None:
        """Wait until no session is open, being opened or being closed."""
        while self.machine.sessions.by_number:
            self._changed.clear()
            await self._changed.wait()

    async def until_face_answered(self, face: FaceChoice) -> RelaydError | None:
        """Wait for all face updates; returns why the shown session refused this face, or None.

        A refusal by another session is retried by the machine.
        """
        refusal = None
        while self._faces:
            pending = dict(self._faces)
            await asyncio.wait(pending)
            for task, order in pending.items():
                if order.face == face and order.number == self.machine.sessions.shown:
                    refusal = task.result()
        return refusal

    def stop_timer(self) -> None:
        """Cancel the timer; call it when no more events come."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    # Queries and frames.

    @property
    def shown_id(self) -> str | None:
        """The service's id of the shown session."""
        link = self._links.get(self.machine.sessions.shown or 0)
        return link.session_id if link else None

    @property
    def sessions_open(self) -> int:
        """Sessions known to be open at the service."""
        return sum(link.session_id is not None for link in self._links.values())

    @property
    def billed(self) -> float:
        """Billed seconds since the start, over all sessions."""
        return self._closed_seconds + sum(link.billed for link in self._links.values())

    def publish(self, frame: SourceFrame) -> None:
        """Pass a source frame to every session that sends; called in the pacer's thread."""
        shown = self.machine.sessions.shown
        for link in self._sending:
            if link.publish(frame) and link.number == shown:
                self.sent += 1

    def publish_sound(self, sound: OwnSound) -> None:
        """Pass the voice to every session that sends; called in the sound's thread."""
        for link in self._sending:
            link.publish_sound(sound)

    # Commands.

    def _handle(self, event: Event) -> None:
        _log.debug(LogEvent.RELAY_EVENT, event_data=event)
        now = self._parts.clock.now()
        try:
            commands = self.machine.handle(event, now)
        except Exception:  # noqa: BLE001 - a bug must not end a call
            _log.exception(LogEvent.RELAY_MACHINE_FAILED, event_data=event)
            self._wake_at(now + FAULT_RETRY)
            return
        if isinstance(event, on.SessionClosed):
            self._forget(event.number)
        for command in commands:
            _log.debug(LogEvent.RELAY_COMMAND, command=command)
            try:
                self._carry_out(command)
            except Exception:  # noqa: BLE001 - a bug must not end a call
                _log.exception(LogEvent.RELAY_COMMAND_FAILED, command=command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case do.WakeAt(moment):
                self._wake_at(moment)
            case do.Report():
                self._on_report(command)
            case do.LogWarning(event, reason):
                _log.warning(event, reason=reason)
            case do.SessionCommand():
                self._run_in_session(command)
            case _:
                self._steer_media(command)

    def _steer_media(self, command: Command) -> None:
        gate, sound = self._parts.gate, self._parts.sound
        match command:
            case do.Show(number):
                gate.show(number)
                if sound:  # the pictures go another way now
                    sound.forget_delay()
            case do.Freeze():
                gate.freeze()
            case do.Thaw():
                gate.thaw()
            case do.SuspendSource():
                self._steer_source(False)
            case do.ResumeSource():
                self._steer_source(True)
            case do.SteerVoice(wanted):
                self._steer_voice(wanted)
            case do.SteerSound(reasons, voice_alone) if sound:
                sound.steer(reasons, voice_alone=voice_alone)

    def _run_in_session(self, command: do.SessionCommand) -> None:
        link = self._link(command.number)
        match command:
            case do.StartLink():
                link.start()
            case do.OpenSession(_, face):
                link.open(face)
            case do.JoinLink():
                link.join()
            case do.RenewToken():
                link.renew_token()
            case do.UpdateFace(_, face):
                task = link.update_face(face)
                self._faces[task] = command
                task.add_done_callback(self._faces.pop)
            case do.CloseSession():
                closing = link.close()
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def _link(self, number: int) -> SessionLink:
        if number not in self._links:
            self._links[number] = SessionLink(number, self._parts, self.post)
            self._sending = tuple(self._links.values())
        return self._links[number]

    def _forget(self, number: int) -> None:
        if link := self._links.pop(number, None):
            self._closed_seconds += link.billed
            self._sending = tuple(self._links.values())

    def _wake_at(self, moment: float | None) -> None:
        self.stop_timer()
        if moment is not None:
            assert self._loop is not None
            self._timer = self._loop.call_at(moment, self.post, on.TimerDue())
