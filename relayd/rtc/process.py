"""The relay's side of the worker process: starts it, exchanges pictures, sound and events."""

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from relayd import logs
from relayd.errors import JoinRefused, WorkerDied
from relayd.logs import LogEvent
from relayd.media.frames import Geometry, SourceFrame, SwappedFrame
from relayd.media.slots import SharedSlot
from relayd.process.child import Child, describe_exit
from relayd.process.descriptors import wait_readable
from relayd.process.environment import python_environment
from relayd.rtc.gate import Gate
from relayd.rtc.link import (
    FINAL_KINDS,
    LARGEST_PACKET,
    LinkEvent,
    LinkEventKind,
    LinkKind,
    LinkTarget,
)
from relayd.rtc.sound import SoundExchange
from relayd.sound.blocks import OwnSound, ReturnedSound

BELL_TIMEOUT = 0.2
"""s after which the picture thread checks whether it should end."""
LIFE_CHECK = 0.2
"""s after which the event thread checks whether a silent worker still runs: its socket stays open
while a process that it started holds it."""
REAP_TIMEOUT = 1.0
"""s for a worker that closed its control socket to exit as well."""
EXIT_GRACE = 0.3
"""s of a stop that are left for the process to exit, after it left, before SIGKILL."""
THREAD_TIMEOUT = 0.5
"""s for our threads to end at a stop; a blocked callback takes longer."""

_log = logs.get("rtc")


class RtcWorker:
    """One worker process; after its death or `stop` a new object is needed.

    Threads: `relayd-arrival` calls `on_picture` with each swapped frame, `relayd-worker-events`
    calls `on_event`, and `relayd-sound-arrival` calls `on_sound` with each block of returned sound,
    in order. No callback may call `stop`. After `stop` has returned, none is called again.

    A link that was joined ends with exactly one of LEFT, LOST, REFUSED and DIED, whatever the
    worker sends; an invalid packet ends the worker. DIED is reported for a worker that ends
    without being stopped, also after LEFT, but not after LOST or REFUSED, which ended the link.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        on_event: Callable[[LinkEvent], None],
        on_picture: Callable[[SwappedFrame], None],
        on_sound: Callable[[ReturnedSound], None] | None = None,
        sound: bool = False,
        kind: LinkKind = "webrtc",
        engine: str = "auto",
        environment: Mapping[str, str] | None = None,
        log_level: str = "info",
    ) -> None:
        """Prepare; `environment` adds variables such as LD_LIBRARY_PATH to the usual ones.

        `engine` is loaded at the start, for a webrtc link. With `sound`, links may publish and
        return sound, as their targets say.
        """
        self._geometry, self._kind, self._engine = geometry, kind, engine
        self._log_level = log_level
        self._events, self._pictures = Gate(on_event), Gate(on_picture)
        self._on_sound = on_sound or _ignore
        self._wants_sound = sound
        self._sound: SoundExchange | None = None
        self._environment = dict(environment or {})
        self._stop = threading.Event()
        self._left = threading.Event()
        self._left.set()
        self._is_lost = False
        self._process: Child | None = None
        self._send_lock = threading.Lock()
        # Daemons: a callback that never returns must not keep our process. Each closes what
        # it reads from when it ends.
        self._event_thread = threading.Thread(
            target=self._read_events, name="relayd-worker-events", daemon=True
        )
        self._picture_thread = threading.Thread(
            target=self._read_pictures, name="relayd-arrival", daemon=True
        )
        self.sent = 0
        """Pictures written for the worker."""
        self.received = 0
        """Swapped pictures taken from the worker."""
        self.missed = 0
        """Swapped pictures that a newer one replaced before they were taken."""
        self.last_picture_at: float | None = None
        """When the newest swapped picture left the RTC library, monotonic."""

    @property
    def sound_missed(self) -> int:
        """Blocks of returned sound that were dropped because they were taken too late."""
        return self._sound.missed if self._sound else 0

    @property
    def pid(self) -> int | None:
        """The worker's process id, once started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """True from the start to the worker's end."""
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Start the process; it reports READY when its library is loaded. Call before `join`.

        Raises WorkerDied if the machine has no process or descriptor left; a failed start
        leaves nothing behind.
        """
        with contextlib.ExitStack() as undo:
            try:
                self._outbound = SharedSlot.create(self._geometry, "outbound")
                undo.callback(self._outbound.close)
                self._inbound = SharedSlot.create(self._geometry, "inbound")
                undo.callback(self._inbound.close)
                if self._wants_sound:
                    self._sound = SoundExchange(self._on_sound)
                    undo.callback(self._sound.end, THREAD_TIMEOUT)
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(self._control.close)
                with theirs:
                    rings = self._sound.fds if self._sound else ()
                    fds = (theirs.fileno(), *self._outbound.fds, *self._inbound.fds, *rings)
                    self._process = Child.start(
                        self._command(fds),
                        pass_fds=fds,
                        environment=python_environment() | self._environment,
                    )
                undo.callback(self._end, 0.0)
                undo.callback(self._stop.set)
                if self._sound:
                    self._sound.start()
                self._event_thread.start()
                self._picture_thread.start()
            except (OSError, RuntimeError) as fault:  # RuntimeError: no more threads
                why = getattr(fault, "strerror", None) or fault
                raise WorkerDied(f"the worker cannot be started: {why}") from fault
            undo.pop_all()

    def join(self, target: LinkTarget) -> None:
        """Order the worker to join; events report the result.

        One link at a time: leave the last one first. Raises WorkerDied when it is gone,
        JoinRefused for a target that exceeds the size of an order.
        """
        self._left.clear()
        self._is_lost = False
        try:
            self._send_order({"do": "join", "target": target.to_json()})
        except (WorkerDied, JoinRefused):
            self._left.set()
            raise

    def publish(self, frame: SourceFrame) -> None:
        """Hand a picture to the worker; never blocks, and the array may be reused."""
        self._outbound.write(frame.i420, frame.captured_at)
        self.sent += 1

    def publish_sound(self, sound: OwnSound) -> None:
        """Hand a block to the worker, in order; never blocks, and the array may be reused.

        From one thread, and only for a worker made with `sound`.
        """
        assert self._sound is not None
        self._sound.publish(sound)

    def renew(self, token: str) -> None:
        """Order the link to use another token from now on.

        Raises WorkerDied when the worker is gone, JoinRefused for a token that exceeds the
        size of an order.
        """
        self._send_order({"do": "renew", "token": token})

    def leave(self, within: float) -> bool:
        """Order the worker to leave and wait up to `within` seconds; True when it did."""
        if self._left.is_set():
            return True
        deadline = time.monotonic() + within
        with contextlib.suppress(WorkerDied):
            self._send_order({"do": "leave", "deadline": deadline})
        return self._left.wait(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """End the process at once (SIGKILL); DIED follows as an event."""
        if self._process is not None:
            self._process.kill()

    def stop(self, within: float) -> None:
        """Leave, end the process and what it started within `within` seconds, free everything.

        It takes up to KILL_TIMEOUT and THREAD_TIMEOUT longer if the kernel holds the process or
        a callback does not return; their resources are then freed when those end.
        Does nothing before the start and after the first stop.
        """
        if self._process is None or self._stop.is_set():
            return
        deadline = time.monotonic() + within
        self.leave(max(0.0, within - EXIT_GRACE))
        self._stop.set()
        self._shut_down(socket.SHUT_WR)  # the order to exit
        self._end(deadline - time.monotonic())
        self._shut_down(socket.SHUT_RDWR)  # in case another process holds the other end
        self._end_threads()
        self._outbound.close()

    def _end(self, within: float) -> None:
        """Wait for the process, kill it after `within` seconds; end what it started."""
        assert self._process is not None
        if not self._process.end(within):
            _log.warning(LogEvent.WORKER_KILLED, pid=self._process.pid)

    def _shut_down(self, how: int) -> None:
        with self._send_lock, contextlib.suppress(OSError):
            self._control.shutdown(how)

    def _end_threads(self) -> None:
        """Allow no further callback; wait a moment for running ones."""
        deadline = time.monotonic() + THREAD_TIMEOUT
        for thread in (self._event_thread, self._picture_thread):
            thread.join(max(0.0, deadline - time.monotonic()))
        for gate in (self._events, self._pictures):
            if not gate.shut(deadline - time.monotonic()):
                _log.error(LogEvent.WORKER_CALLBACK_STUCK)
        if self._sound and not self._sound.end(deadline - time.monotonic()):
            _log.error(LogEvent.WORKER_CALLBACK_STUCK)

    def _read_events(self) -> None:
        """Pass on events until the worker ends, then report that."""
        protocol_error = ""
        try:
            while packet := self._next_packet():
                self._handle_packet(packet)
        except OSError:
            pass  # it closed the socket with unread orders
        except Exception as fault:  # noqa: BLE001 - a worker may send anything
            protocol_error = f"the worker sent an invalid message ({fault}) and was killed"
            self.kill()
        error = None if self._stop.is_set() else WorkerDied(self._reap(protocol_error))
        with self._send_lock:
            self._control.close()
        if error is not None:
            _log.error(LogEvent.WORKER_DIED, pid=self.pid, reason=error.message)
            if not self._is_lost:
                self._events.put(LinkEvent(LinkEventKind.DIED, error=error))
        self._left.set()

    def _next_packet(self) -> bytes:
        """Wait for a packet; empty at the end of the socket or the process."""
        assert self._process is not None
        while not wait_readable((self._control.fileno(),), LIFE_CHECK):
            if self._process.poll() is not None:
                return b""
        return self._control.recv(LARGEST_PACKET)

    def _handle_packet(self, packet: bytes) -> None:
        """Pass on one event; raises ValueError or another error for an invalid packet."""
        event = LinkEvent.from_json(json.loads(packet))
        if event is None:
            _log.warning(LogEvent.WORKER_UNKNOWN_EVENT)
            return
        if event.kind is LinkEventKind.DIED:
            raise ValueError("it reported its own death")
        self._is_lost |= event.kind in {LinkEventKind.LOST, LinkEventKind.REFUSED}
        self._events.put(event)
        if event.kind in FINAL_KINDS:
            self._left.set()

    def _reap(self, protocol_error: str) -> str:
        """Wait for the process and return why it ended; kill it if it only closed its socket."""
        assert self._process is not None
        if not self._process.end(REAP_TIMEOUT):
            return "the worker closed its control socket and was killed"
        return protocol_error or f"the worker {describe_exit(self._process.poll() or 0)}"

    def _read_pictures(self) -> None:
        """Copy each swapped picture out of shared memory, as soon as it is signalled."""
        number = 0
        while not self._stop.is_set():
            if not self._inbound.wait(BELL_TIMEOUT):
                continue
            picture = np.empty(self._geometry.shape, np.uint8)
            got = self._inbound.read(picture, number)
            if got is None:
                continue
            self.missed += got[0] - number - 1
            number, self.last_picture_at = got
            self.received += 1
            self._pictures.put(SwappedFrame(picture, self.last_picture_at))
        self._inbound.close()

    def _send_order(self, order: Mapping[str, object]) -> None:
        """Send an order; never waits. A worker that does not read its orders is killed."""
        packet = json.dumps(order).encode()
        if len(packet) > LARGEST_PACKET:
            raise JoinRefused(
                f"the session's data have {len(packet)} bytes, more than the {LARGEST_PACKET} "
                "that an order to the worker may have: is its token one?"
            )
        try:
            with self._send_lock:
                self._control.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError as fault:
            self.kill()
            raise WorkerDied("the worker did not read its orders and was killed") from fault
        except OSError as fault:
            raise WorkerDied("the worker takes no more orders") from fault

    def _command(self, fds: tuple[int, ...]) -> list[str]:
        control, out_memory, out_bell, in_memory, in_bell, *rings = map(str, fds)
        sound = ("--sound", *rings, "--ring", str(self._sound.capacity)) if self._sound else ()
        return [
            # -P: do not import from the current folder.
            *(sys.executable, "-P", "-m", "relayd.rtc.worker"),
            *(
                "--kind",
                self._kind,
                "--engine",
                self._engine,
                "--size",
                str(self._geometry),
                "--control",
                control,
            ),
            *("--outbound", out_memory, out_bell, "--inbound", in_memory, in_bell),
            *("--log-level", self._log_level),
            *sound,
        ]


def _ignore(_sound: ReturnedSound) -> None:
    """Take returned sound that nobody asked for."""
