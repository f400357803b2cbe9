"""The worker process: runs one RTC library between two shared slots and a control socket.

Where sound is wanted, two shared rings carry it beside the pictures.

`RtcWorker` (process.py) starts it as `python -m relayd.rtc.worker` with inherited
descriptors. Orders come in and events go out as one JSON object per packet (SOCK_SEQPACKET).
The end of the socket, which the kernel closes however the parent dies, and SIGTERM both mean:
leave and exit.

The process leads its own session, so that only the parent gets a terminal's Ctrl-C and hang-up,
and so that processes started by a native library end with it: the parent kills the group once
the worker has exited; if the parent is gone, the worker does so itself.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any, NoReturn, get_args

import numpy as np

from relayd import logs
from relayd.errors import LinkLost, RelaydError
from relayd.logs import LogEvent
from relayd.media.frames import I420, Geometry
from relayd.media.scale import Scaler
from relayd.media.slots import SharedSlot
from relayd.process.descriptors import keep_from_children
from relayd.process.hardening import forbid_dumps
from relayd.rtc.kinds import load_link
from relayd.rtc.link import LARGEST_PACKET, Link, LinkEvent, LinkEventKind, LinkKind, LinkTarget
from relayd.rtc.outbox import Outbox
from relayd.sound.blocks import Samples
from relayd.sound.ring import SharedRing

LEAVE_TIMEOUT = 1.5
"""s to leave in when the parent is gone or closed the socket."""
HARD_EXIT = 1.0
"""s after LEAVE_TIMEOUT at which the process exits even if a library still runs."""
BELL_TIMEOUT = 0.2
"""s after which the pump checks whether it should end."""

_log = logs.get("worker")


class Worker:
    """Carries out orders: at most one link at a time."""

    def __init__(
        self,
        control: socket.socket,
        outbound: SharedSlot,
        inbound: SharedSlot,
        sound: tuple[SharedRing, SharedRing] | None,
    ) -> None:
        """`sound`: the ring to the link and the one back; None where no sound is wanted."""
        self._control, self._outbound, self._inbound = control, outbound, inbound
        self._sound = sound
        self._link: Link | None = None
        self._listener: Link | None = None  # the link, if it publishes sound
        self._stop = threading.Event()
        self._scaler = Scaler(inbound.geometry)
        self._outbox = Outbox(self._send)

    def run(self, kind: LinkKind, engine: str = "auto") -> None:
        """Load the library, then follow orders until the control socket ends."""
        # A daemon, as the pumps: none may keep the process alive at its end.
        threading.Thread(target=self._watch_parent, name="relayd-parent", daemon=True).start()
        self._start_pump("relayd-outbound", self._pump_pictures)
        if self._sound is not None:
            self._start_pump("relayd-outbound-sound", partial(self._pump_sound, self._sound[0]))
        self._outbox.start()
        try:
            try:
                load_link(kind, engine)
                self._outbox.put(LinkEvent(LinkEventKind.READY))
            except RelaydError as fault:
                self._outbox.put(LinkEvent(LinkEventKind.REFUSED, error=fault))
            while packet := self._control.recv(LARGEST_PACKET):
                self._handle_order(json.loads(packet))
        except ConnectionError:
            pass  # the parent is gone, as at the socket's end
        finally:
            leave_by = time.monotonic() + LEAVE_TIMEOUT
            self._exit_at(leave_by + HARD_EXIT)
            self._leave(leave_by)
            self._stop.set()
            self._outbox.close(leave_by + HARD_EXIT - time.monotonic())

    def exit(self, status: int) -> NoReturn:
        """Exit at once; if the parent is gone, also end all processes that this one started."""
        poll = select.poll()
        poll.register(self._control, 0)  # reports only POLLHUP: the other end is gone
        if poll.poll(0) and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(status)  # skips a native library's destructors

    def _handle_order(self, order: Mapping[str, Any]) -> None:
        if order["do"] == "join":
            self._leave(time.monotonic() + LEAVE_TIMEOUT)
            self._join(LinkTarget.from_json(order["target"]))
        elif order["do"] == "renew":
            self._renew(order["token"])
        elif order["do"] == "leave":
            self._leave(order["deadline"])

    def _join(self, target: LinkTarget) -> None:
        logs.conceal(target.token)
        try:
            make = load_link(target.kind, target.engine)
            self._link = make(target, self._take_picture, self._outbox.put, self._take_sound)
            self._link.join()
            self._listener = self._link if target.publish_sound else None
        except RelaydError as fault:
            self._outbox.put(LinkEvent(LinkEventKind.REFUSED, error=fault))
        except Exception as fault:  # noqa: BLE001 - libraries raise anything
            _log.exception(LogEvent.LINK_JOIN_FAILED)
            error = LinkLost(f"the link could not begin: {type(fault).__name__}")
            self._outbox.put(LinkEvent(LinkEventKind.LOST, error=error))

    def _renew(self, token: str) -> None:
        logs.conceal(token)
        if self._link is not None:
            self._link.renew(token)

    def _leave(self, deadline: float) -> None:
        link, self._link = self._link, None
        self._listener = None
        if link is not None:
            link.leave(deadline)

    def _start_pump(self, name: str, pump: Callable[[], None]) -> None:
        """Run `pump` in a thread; if it fails, exit."""

        def run() -> None:
            try:
                pump()
            except Exception:  # noqa: BLE001 - libraries raise anything
                _log.exception(LogEvent.LINK_PUBLISH_FAILED)
                self.exit(1)

        threading.Thread(target=run, name=name, daemon=True).start()

    def _pump_pictures(self) -> None:
        """Pass each picture to the link when it is signalled."""
        picture = np.empty(self._outbound.geometry.shape, np.uint8)
        number = 0
        while not self._stop.is_set():
            if not self._outbound.wait(BELL_TIMEOUT):
                continue
            got = self._outbound.read(picture, number)
            link = self._link
            if got is None:
                continue
            number, captured_at = got
            if link is not None:
                link.publish(picture, captured_at)

    def _pump_sound(self, outbound: SharedRing) -> None:
        """Pass each block to the link, in order; drop it where none publishes sound."""
        while not self._stop.is_set():
            if not outbound.wait(BELL_TIMEOUT):
                continue
            while got := outbound.read():
                if listener := self._listener:
                    listener.publish_sound(*got)

    def _take_picture(self, picture: I420, received_at: float) -> None:
        self._inbound.write(self._scaler.fit(picture), received_at)

    def _take_sound(self, samples: Samples, received_at: float) -> None:
        if self._sound is not None:
            self._sound[1].write(samples, received_at)

    def _send(self, event: LinkEvent) -> None:
        """Send to the parent; blocks while it does not read. On the outbox's thread."""
        self._control.send(json.dumps(event.to_json()).encode(), socket.MSG_NOSIGNAL)

    def _watch_parent(self) -> None:
        """Limit our lifetime once the socket ends, even if a library blocks `run`."""
        ended = select.poll()
        ended.register(self._control, select.POLLRDHUP)
        ended.poll()
        self._exit_at(time.monotonic() + LEAVE_TIMEOUT + HARD_EXIT)

    def _exit_at(self, moment: float) -> None:
        """Exit at `moment`, unless the process has ended by then."""
        timer = threading.Timer(moment - time.monotonic(), self.exit, (1,))
        timer.daemon = True
        timer.start()


def _sound_rings(capacity: int, *fds: int) -> tuple[SharedRing, SharedRing] | None:
    if not fds:
        return None
    out_memory, out_bell, in_memory, in_bell = fds
    outbound = SharedRing(capacity, out_memory, out_bell)
    return outbound, SharedRing(capacity, in_memory, in_bell)


def main() -> None:
    """Run one worker; the main function of its process."""
    forbid_dumps()
    parser = argparse.ArgumentParser(prog="python -m relayd.rtc.worker")
    parser.add_argument("--kind", required=True, choices=get_args(LinkKind))
    parser.add_argument("--engine", default="auto", help="of a webrtc link")
    parser.add_argument("--size", required=True, help="WIDTHxHEIGHT")
    parser.add_argument("--control", type=int, required=True, metavar="FD")
    parser.add_argument("--outbound", type=int, nargs=2, required=True, metavar="FD")
    parser.add_argument("--inbound", type=int, nargs=2, required=True, metavar="FD")
    parser.add_argument("--sound", type=int, nargs=4, default=(), metavar="FD")
    parser.add_argument("--ring", type=int, default=0, help="blocks that each ring of sound holds")
    parser.add_argument("--log-level", default="info")
    args = parser.parse_args()

    keep_from_children((args.control, *args.outbound, *args.inbound, *args.sound))
    os.dup2(2, 1)  # native libraries write to stdout
    faulthandler.enable()
    logs.configure(args.log_level)
    logs.report_uncaught()
    control = socket.socket(fileno=args.control)

    def on_sigterm(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_RD)  # the order loop sees the socket's end

    # SIGINT may be sent to all of relayd's processes: the parent decides when we exit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_sigterm)
    width, _, height = args.size.partition("x")
    geometry = Geometry(int(width), int(height))
    outbound, inbound = (SharedSlot(geometry, *fds) for fds in (args.outbound, args.inbound))
    worker = Worker(control, outbound, inbound, _sound_rings(args.ring, *args.sound))
    try:
        worker.run(args.kind, args.engine)
    except Exception:  # noqa: BLE001 - libraries raise anything
        _log.exception(LogEvent.WORKER_FAILED)
        worker.exit(1)
    worker.exit(0)


if __name__ == "__main__":
    main()
