"""The relay's side of the worker process: starts it, feeds it, hears it, outlives it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import relayd
from relayd import logs
from relayd.errors import WorkerDied
from relayd.frames import Geometry, SourceFrame, SwappedFrame
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkKind, LinkTarget
from relayd.slots import SharedSlot

LARGEST_EVENT = 64 * 1024
"""Bytes of one packet on the control socket."""
BELL_TIMEOUT = 0.2
"""s after which the arrival thread looks whether it should end."""
REAP_TIMEOUT = 1.0
"""s for a worker that closed its control socket to be gone as well."""
TERM_GRACE = 0.3
"""s between SIGTERM and SIGKILL at a stop."""

_OVER = {LinkEventKind.LEFT, LinkEventKind.LOST, LinkEventKind.REFUSED}

_log = logs.get("rtc")


class RtcWorker:
    """One worker process; after its death or `stop` a new object is needed.

    Threads: `relayd-arrival` calls `on_picture` with each swapped frame, `relayd-worker-events`
    calls `on_event`. Neither callback may call `stop`.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        on_event: Callable[[LinkEvent], None],
        on_picture: Callable[[SwappedFrame], None],
        kind: LinkKind = "webrtc",
        environment: Mapping[str, str] | None = None,
        log_level: str = "info",
    ) -> None:
        """Prepare; `environment` adds to ours (a native library's LD_LIBRARY_PATH, say)."""
        self._geometry, self._kind, self._log_level = geometry, kind, log_level
        self._on_event, self._on_picture = on_event, on_picture
        self._environment = dict(environment or {})
        self._stop = threading.Event()
        self._left = threading.Event()
        self._left.set()
        self._process: subprocess.Popen[bytes] | None = None
        self._threads = [
            threading.Thread(target=self._hear, name="relayd-worker-events"),
            threading.Thread(target=self._arrive, name="relayd-arrival"),
        ]
        self.sent = 0
        """Pictures written for the worker."""
        self.received = 0
        """Swapped pictures taken from the worker."""
        self.missed = 0
        """Swapped pictures that a newer one replaced before they were taken."""
        self.last_picture_at: float | None = None
        """When the newest swapped picture left the RTC library, monotonic."""

    @property
    def pid(self) -> int | None:
        """The worker's process id, once started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """True from the start to the worker's end."""
        return self._process is not None and self._process.returncode is None

    def start(self) -> None:
        """Start the process; it says READY when its library is loaded. Use before `join`.

        Raises WorkerDied where this machine has no process or descriptor left; nothing of a
        start that failed stays behind.
        """
        with contextlib.ExitStack() as undo:
            try:
                self._outbound = SharedSlot.create(self._geometry, "outbound")
                undo.callback(self._outbound.close)
                self._inbound = SharedSlot.create(self._geometry, "inbound")
                undo.callback(self._inbound.close)
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(self._control.close)
                with theirs:
                    fds = (theirs.fileno(), *self._outbound.fds, *self._inbound.fds)
                    self._process = subprocess.Popen(  # noqa: S603 - our own module
                        self._command(fds),
                        pass_fds=fds,
                        stdin=subprocess.DEVNULL,
                        env=self._environ(),
                    )
            except OSError as fault:
                raise WorkerDied(f"the worker cannot be started: {fault.strerror}") from fault
            undo.pop_all()
        for thread in self._threads:
            thread.start()

    def join(self, target: LinkTarget) -> None:
        """Order the worker to join; events tell how it went.

        One link at a time: leave the last one first. Raises WorkerDied when it is gone.
        """
        self._left.clear()
        try:
            self._order({"do": "join", "target": target.to_json()})
        except WorkerDied:
            self._left.set()
            raise

    def publish(self, frame: SourceFrame) -> None:
        """Hand a picture to the worker; never blocks, and the array may be reused."""
        self._outbound.write(frame.i420, frame.captured_at)
        self.sent += 1

    def renew(self, token: str) -> None:
        """Order the link to use another token from now on; WorkerDied when it is gone."""
        self._order({"do": "renew", "token": token})

    def leave(self, within: float) -> bool:
        """Order the worker to leave and wait up to `within` seconds; True when it did."""
        if self._left.is_set():
            return True
        deadline = time.monotonic() + within
        with contextlib.suppress(WorkerDied):
            self._order({"do": "leave", "deadline": deadline})
        return self._left.wait(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """End the process at once (SIGKILL); DIED follows as an event."""
        if self._process is not None:
            self._process.kill()

    def stop(self, within: float) -> None:
        """Leave, end the process within `within` seconds at the latest, free everything.

        Does nothing before the start and after the first stop.
        """
        if self._process is None or self._stop.is_set():
            return
        deadline = time.monotonic() + within
        self.leave(max(0.0, within - TERM_GRACE))
        self._stop.set()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)  # the order to exit
        self._end(deadline)
        for thread in self._threads:
            thread.join()
        self._control.close()
        self._outbound.close()
        self._inbound.close()

    def _end(self, deadline: float) -> None:
        """Wait for the process, less and less politely."""
        assert self._process is not None
        waits = (deadline - time.monotonic(), TERM_GRACE)
        for wait, harsher in zip(waits, (self._process.terminate, self._process.kill), strict=True):
            try:
                self._process.wait(max(0.0, wait))
            except subprocess.TimeoutExpired:
                harsher()
            else:
                return
        _log.warning("worker killed", pid=self._process.pid)
        self._process.wait()

    def _hear(self) -> None:
        """Pass on events until the socket's end, which is the process's."""
        try:
            while packet := self._control.recv(LARGEST_EVENT):
                event = LinkEvent.from_json(json.loads(packet))
                self._on_event(event)
                if event.kind in _OVER:
                    self._left.set()
        except OSError:
            pass
        if not self._stop.is_set():
            error = WorkerDied(self._how_it_died())
            _log.error("worker died", pid=self.pid, reason=error.message)
            self._on_event(LinkEvent(LinkEventKind.DIED, error=error))
        self._left.set()

    def _how_it_died(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(REAP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "the worker hung up its control socket and was killed"
        if code < 0:
            return f"the worker was ended by {signal.Signals(-code).name}"
        return f"the worker exited with status {code}"

    def _arrive(self) -> None:
        """Copy each swapped picture out of shared memory, as soon as the doorbell rings."""
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
            self._on_picture(SwappedFrame(picture, self.last_picture_at))

    def _order(self, order: Mapping[str, object]) -> None:
        try:
            self._control.send(json.dumps(order).encode())
        except OSError as fault:
            raise WorkerDied("the worker takes no more orders") from fault

    def _command(self, fds: tuple[int, ...]) -> list[str]:
        control, out_memory, out_bell, in_memory, in_bell = map(str, fds)
        return [
            # -P: the folder we happen to run in is no place to import from.
            *(sys.executable, "-P", "-m", "relayd.rtc.worker"),
            *("--kind", self._kind, "--size", str(self._geometry), "--control", control),
            *("--outbound", out_memory, out_bell, "--inbound", in_memory, in_bell),
            *("--log-level", self._log_level),
        ]

    def _environ(self) -> dict[str, str]:
        """Ours, with the place this relayd was imported from: the worker must be of one make."""
        own = str(Path(relayd.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH", ""))))
        return dict(os.environ) | {"PYTHONPATH": path} | self._environment
