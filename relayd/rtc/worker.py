"""The worker process: one RTC library, alone, between two shared slots and a control socket.

`RtcWorker` (process.py) starts it as `python -m relayd.rtc.worker` with inherited
descriptors. Orders come in and events go out as one JSON object a packet (SOCK_SEQPACKET).
The socket's end, which the kernel brings about however the parent dies, and SIGTERM both
mean: leave and exit.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, get_args

import numpy as np

from relayd import logs
from relayd.errors import LinkLost, RelaydError
from relayd.frames import I420, Geometry
from relayd.media.scale import Scaler
from relayd.rtc.kinds import load_link
from relayd.rtc.link import Link, LinkEvent, LinkEventKind, LinkKind, LinkTarget
from relayd.slots import SharedSlot

LARGEST_ORDER = 64 * 1024
"""Bytes of one packet on the control socket."""
FAREWELL = 1.5
"""s to leave in when the parent is gone or has hung up."""
HARD_EXIT = 1.0
"""s after the farewell at which the process ends whatever a library still does."""
BELL_TIMEOUT = 0.2
"""s after which the pump looks whether it should end."""

_log = logs.get("worker")


class Worker:
    """Carries out orders: at most one link at a time."""

    def __init__(self, control: socket.socket, outbound: SharedSlot, inbound: SharedSlot) -> None:
        self._control, self._outbound, self._inbound = control, outbound, inbound
        self._link: Link | None = None
        self._stop = threading.Event()
        self._scaler = Scaler(inbound.geometry)

    def run(self, kind: LinkKind) -> None:
        """Load the library, then follow orders until the control socket ends."""
        pump = threading.Thread(target=self._pump_out, name="relayd-outbound")
        pump.start()
        try:
            try:
                load_link(kind)
                self._say(LinkEvent(LinkEventKind.READY))
            except RelaydError as fault:
                self._say(LinkEvent(LinkEventKind.REFUSED, error=fault))
            while packet := self._control.recv(LARGEST_ORDER):
                self._obey(json.loads(packet))
        except ConnectionError:
            pass  # the parent is gone, as at the socket's end
        finally:
            _exit_at(time.monotonic() + FAREWELL + HARD_EXIT)
            self._leave(time.monotonic() + FAREWELL)
            self._stop.set()
            pump.join()

    def _obey(self, order: Mapping[str, Any]) -> None:
        if order["do"] == "join":
            self._leave(time.monotonic() + FAREWELL)
            self._join(LinkTarget.from_json(order["target"]))
        elif order["do"] == "renew":
            self._renew(order["token"])
        elif order["do"] == "leave":
            self._leave(order["deadline"])

    def _join(self, target: LinkTarget) -> None:
        logs.conceal(target.token)
        try:
            make = load_link(target.kind)
            self._link = make(target, self._take_picture, self._say)
            self._link.join()
        except RelaydError as fault:
            self._say(LinkEvent(LinkEventKind.REFUSED, error=fault))
        except Exception as fault:  # noqa: BLE001 - libraries raise anything
            _log.exception("join failed")
            error = LinkLost(f"the link could not begin: {type(fault).__name__}")
            self._say(LinkEvent(LinkEventKind.LOST, error=error))

    def _renew(self, token: str) -> None:
        logs.conceal(token)
        if self._link is not None:
            self._link.renew(token)

    def _leave(self, deadline: float) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.leave(deadline)

    def _pump_out(self) -> None:
        """Hand each picture to the link when the doorbell rings."""
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

    def _take_picture(self, picture: I420, received_at: float) -> None:
        self._inbound.write(self._scaler.fit(picture), received_at)

    def _say(self, event: LinkEvent) -> None:
        """Tell the parent. One that does not listen any more must not hold us up."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._control.send(json.dumps(event.to_json()).encode(), socket.MSG_DONTWAIT)


def _exit_at(moment: float) -> None:
    """End the process at `moment`, unless it ended before by itself."""
    timer = threading.Timer(moment - time.monotonic(), os._exit, (1,))
    timer.daemon = True
    timer.start()


def main() -> None:
    """Run one worker; called in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m relayd.rtc.worker")
    parser.add_argument("--kind", required=True, choices=get_args(LinkKind))
    parser.add_argument("--size", required=True, help="WIDTHxHEIGHT")
    parser.add_argument("--control", type=int, required=True, metavar="FD")
    parser.add_argument("--outbound", type=int, nargs=2, required=True, metavar="FD")
    parser.add_argument("--inbound", type=int, nargs=2, required=True, metavar="FD")
    parser.add_argument("--log-level", default="info")
    told = parser.parse_args()

    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # native libraries chat on stdout
    faulthandler.enable()
    logs.configure(told.log_level)
    control = socket.socket(fileno=told.control)

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            control.shutdown(socket.SHUT_RD)  # the order loop sees the socket's end

    # Ctrl-C reaches the whole terminal group; what becomes of us is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, hang_up)
    width, _, height = told.size.partition("x")
    geometry = Geometry(int(width), int(height))
    outbound, inbound = (SharedSlot(geometry, *fds) for fds in (told.outbound, told.inbound))
    Worker(control, outbound, inbound).run(told.kind)
    sys.stderr.flush()
    os._exit(0)  # a native library's threads and destructors have no say in our end


if __name__ == "__main__":
    main()
