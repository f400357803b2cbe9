"""The virtual microphone on real sound servers: latency, and what is lost in a minute.

    python -m tests.bench.bench_microphone [--seconds S] [--root FOLDER]

Each block holds its number in every sample, and is fed by the clock of sound; another program
(parec) records. Latency is from when a block is fed at the latest until the recorder has read all
of it. `--root` is a folder with an unpacked newer PipeWire, such as 1.4 of bookworm-backports,
which is tried beside the installed servers.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from relayd import logs
from relayd.config.settings import MicrophoneSettings
from relayd.output.microphone import make_microphone
from relayd.output.pulse import find_server
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, AudibleSound
from relayd.sound.clock import HELD, SoundClock
from tests.support.sound_server import SoundServer, is_installed, unpacked


def measure(server: SoundServer, seconds: float) -> None:
    """Print one row."""
    os.environ.update(server.environment)
    microphone = make_microphone(MicrophoneSettings(kind="microphone"), lambda *_: None)
    microphone.open()
    fed_at = [0.0]

    def feed(due: float) -> None:
        fed_at.append(due + HELD)
        value = (len(fed_at) - 1) % 32000 + 1
        microphone.play(AudibleSound(np.full(BLOCK, value, np.int16), due))

    feeder = SoundClock(feed)
    feeder.start()
    try:
        pieces, read_at = [], []
        with server.recording("relayd_microphone") as take:
            take(1.0)
            for _ in range(round(seconds / BLOCK_SECONDS)):
                pieces.append(take(BLOCK_SECONDS))
                read_at.append(time.monotonic())
    finally:
        feeder.stop()
        name = find_server().name
        microphone.close()
    samples = np.concatenate(pieces)
    starts = np.flatnonzero(np.diff(samples, prepend=samples[0]))
    starts = starts[samples[starts] > 0]
    values = samples[starts]
    lost = int((np.diff(values) - 1).clip(0).sum())
    latencies = [
        read_at[start // BLOCK] + (start % BLOCK) / RATE - fed_at[value - 1]
        for start, value in zip(starts, values, strict=True)
        if value - 1 < len(fed_at)
    ]
    spread = " ".join(f"{x * 1e3:6.1f}" for x in np.percentile(latencies, (5, 50, 95)))
    silent = np.count_nonzero(samples == 0) / RATE
    print(f"{name:36} {spread} {lost:6} {silent * 1e3:8.0f}")


def main() -> None:
    """Measure each server that is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--root", type=Path)
    args = parser.parse_args()
    logs.configure("error")
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    print(f"{'server':36} {'p5':>6} {'p50':>6} {'p95':>6} {'lost':>6} silent  (ms, blocks, ms)")
    with tempfile.TemporaryDirectory() as folder:
        servers = [
            SoundServer(kind, Path(folder) / kind)
            for kind in ("pulseaudio", "pipewire")
            if is_installed(kind)
        ]
        if args.root:
            servers.append(
                SoundServer("pipewire", Path(folder) / "newer", more=unpacked(args.root))
            )
        for server in servers:
            server.start()
            try:
                measure(server, args.seconds)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
