"""Runs in the guest: starts programs as the host asks, and tells what they say and how they end.

One JSON object a line, both ways, over a virtio-serial port. The host asks
{"op": "start", "id", "command", "stdin"}, {"op": "input", "id", "data"},
{"op": "signal", "id", "number"}; it hears {"ready": uptime}, {"id", "pid"}, {"id", "out"} and
{"id", "status"}. Bytes travel as base64. Only the standard library, for a start of 1 s.
"""

import base64
import contextlib
import glob
import json
import os
import subprocess
import sys
import threading
import time


def port() -> str:
    """Return the port's device once the driver has made it."""
    for _ in range(200):
        if found := glob.glob("/dev/vport*p1"):  # noqa: PTH207 - pathlib costs 0.3 s here
            return found[0]
        time.sleep(0.05)
    sys.exit("no virtio-serial port")


class Agent:
    """The other end of `guest.Guest`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        """Do what the host asks until it hangs up."""
        with open("/proc/uptime", encoding="ascii") as uptime:  # noqa: PTH123 - as above
            self._tell(ready=float(uptime.read().split()[0]))
        with os.fdopen(os.dup(self._descriptor), "rb") as asked:
            for line in asked:
                self._do(line)

    def _tell(self, **words: object) -> None:
        data = json.dumps(words).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]

    def _do(self, line: bytes) -> None:
        asked = json.loads(line)
        number = asked["id"]
        if asked["op"] == "start":
            process = subprocess.Popen(
                ["bash", "-c", asked["command"]],
                stdin=subprocess.PIPE if asked["stdin"] else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running[number] = process
            self._tell(id=number, pid=process.pid)
            threading.Thread(target=self._follow, args=(number, process), daemon=True).start()
            return
        process = self._running[number]
        if asked["op"] == "input" and process.stdin:
            process.stdin.write(base64.b64decode(asked["data"]))
            process.stdin.flush()
        elif asked["op"] == "signal":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, asked["number"])

    def _follow(self, number: int, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 1 << 16):
            self._tell(id=number, out=base64.b64encode(data).decode())
        self._tell(id=number, status=process.wait())


if __name__ == "__main__":
    Agent(os.open(port(), os.O_RDWR)).serve()
