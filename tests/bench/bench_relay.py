"""The whole relay beside a bare sleeping loop: cadence, jitter, delay, CPU, for half a minute.

    python tests/bench/bench_relay.py [SECONDS]

The peer is a process that does nothing but wake each 50 ms: how late it is, is the machine's
share. Figures of the relay are given as they are and as ratios to the peer's.
"""

import asyncio
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil

from relayd.akool.connect import connect, open_journal
from relayd.commands.demo import emulator, settings_for, upload_face
from relayd.media.frames import OutputFrame
from relayd.relay.relay import Relay

FPS = 20.0
WARM_UP = 35.0
"""s until the phases of the clocks have met."""
PEER = """
import sys, time
beats, due = [], time.monotonic()
end = due + float(sys.argv[1])
while due < end:
    time.sleep(max(0.0, due - time.monotonic()))
    beats.append(time.monotonic())
    due += 0.05
print(*beats)
"""


class BeatRecorder:
    """An output that only notes when it was given a frame."""

    name = "bench"

    def __init__(self) -> None:
        self.beats: list[float] = []

    def open(self) -> None:
        """Nothing to take."""

    def show(self, _frame: OutputFrame) -> None:
        """Note the time."""
        self.beats.append(time.monotonic())

    def close(self) -> None:
        """Nothing to let go of."""


async def measure(seconds: float) -> None:
    """Run the relay against an emulator, and print what was seen."""
    with tempfile.TemporaryDirectory() as state:
        async with emulator() as service:
            face = await upload_face("", service)
            settings = settings_for(service, face, "", [], state)
            recorder = BeatRecorder()
            async with connect(settings) as client:
                relay = Relay(
                    settings, "bench", client, open_journal(settings), more_outputs=[recorder]
                )
                await _run(relay, recorder, seconds)


async def _run(relay: Relay, recorder: BeatRecorder, seconds: float) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    while relay.status().state.value != "live":
        await asyncio.sleep(0.1)
    await asyncio.sleep(WARM_UP)
    peer = subprocess.Popen(
        [sys.executable, "-c", PEER, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    first, before = len(recorder.beats), relay.status()
    cpu = _cpu()
    await asyncio.sleep(seconds)
    used = {name: (after - cpu[name]) / seconds for name, after in _cpu().items() if name in cpu}
    beats, after = np.array(recorder.beats[first:]), relay.status()
    peers = np.array([float(beat) for beat in peer.communicate()[0].split()])
    stop.set()
    await running
    _print(beats, peers)
    span = beats[-1] - beats[0]
    print(f"cadence            {(len(beats) - 1) / span:.3f} fps")
    for stage in ("sent", "swapped", "fresh", "repeated", "standby"):
        print(f"{stage:18} {(after.frames[stage] - before.frames[stage]) / seconds:.2f} a second")
    for name, spread in (("glass to glass", after.delay), ("relayd's own", after.own_delay)):
        if spread.p50 is not None and spread.p95 is not None:
            print(f"{name:18} p50 {spread.p50 * 1e3:.0f} ms  p95 {spread.p95 * 1e3:.0f} ms")
    print("CPU, cores         " + "  ".join(f"{name} {share:.2f}" for name, share in used.items()))
    print(f"RSS                {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _print(beats: np.ndarray, peers: np.ndarray) -> None:
    print("jitter of beats    relay      peer       ratio")
    for label, pick in (("p50", 50), ("p99", 99), ("max", 100)):
        ours, theirs = (
            np.percentile(np.abs(np.diff(one) - 1 / FPS), pick) * 1e3 for one in (beats, peers)
        )
        print(f"  {label}              {ours:7.2f} ms {theirs:7.2f} ms {ours / theirs:6.1f}")


def _cpu() -> dict[str, float]:
    used: dict[str, float] = {}
    for process in [psutil.Process(), *psutil.Process().children()]:
        if process.status() == psutil.STATUS_ZOMBIE:
            continue
        line = " ".join(process.cmdline())
        name = next((n for n in ("worker", "emulator", "sys.argv") if n in line), "relay")
        name = "peer" if name == "sys.argv" else name
        times = process.cpu_times()
        used[name] = used.get(name, 0.0) + times.user + times.system
    return used


if __name__ == "__main__":
    asyncio.run(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0))
