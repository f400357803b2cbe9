"""Runs in the guest: writes the loopback card as a relay does, and reads it as a program would.

Each block holds its number in every sample, so that loss, order and latency are exact. Prints one
JSON object.
"""

import json
import subprocess
import sys
import threading
import time

import numpy as np

from relayd.errors import MicrophoneUnavailable
from relayd.output.loopback_card import LoopbackCard
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, AudibleSound

DEVICE = "hw:CARD=relayd,DEV=0"
RECORD = ["arecord", "-q", "-D", "hw:CARD=relayd,DEV=1", "-t", "raw", "-f", "S16_LE"]
FORMAT = ["-r", "48000", "-c", "1", "--buffer-time=60000", "--period-time=10000"]
SECONDS = 4
READERS = 3
"""One after another: where in a period each begins differs, and so does its latency."""
FILLED = BLOCK * 50
"""Samples at the start that are not counted: what waited for the reader."""


def record(seconds: float) -> tuple[np.ndarray, list[float]]:
    """Return the samples, and when each piece of 10 ms was read."""
    pieces, at = [], []
    with subprocess.Popen([*RECORD, *FORMAT], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        for _ in range(round(seconds / BLOCK_SECONDS)):
            pieces.append(np.frombuffer(program.stdout.read(BLOCK * 2), np.int16))
            at.append(time.monotonic())
        program.kill()
    return np.concatenate(pieces), at


def latencies_in(
    samples: np.ndarray, read_at: list[float], sent_at: dict[int, float]
) -> list[float]:
    """Return the s from writing each block until all of it was read.

    Pieces that are read begin within a block: its rest comes with the next one.
    """
    first = {int(number): index for index, number in reversed(list(enumerate(samples)))}
    return [
        read_at[index // BLOCK] + (index % BLOCK) / RATE - sent_at[number]
        for number, index in first.items()
        if number in sent_at and index > FILLED
    ]


def main() -> None:
    """Try the card."""
    found: dict[str, object] = {}
    silent, _ = record(0.5)
    found["silent_without_writer"] = not silent.any()
    counts: list[int | None] = []
    card = LoopbackCard(DEVICE, lambda _name, count: counts.append(count))
    card.open()
    stop, sent_at = threading.Event(), {}

    def feed() -> None:
        number, due = 0, time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            number += 1
            sent_at[number] = time.monotonic()
            card.play(AudibleSound(np.full(BLOCK, number, np.int16), due))
            due += BLOCK_SECONDS

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(2.0)
    recordings = [record(SECONDS) for _ in range(READERS)]
    time.sleep(2.0)
    stop.set()
    feeder.join()
    card.close()
    samples = recordings[-1][0]
    numbers = samples[np.flatnonzero(np.diff(samples, prepend=samples[0]))]
    numbers = numbers[numbers > 0]
    numbers = numbers[np.diff(numbers, prepend=0) != 0]  # an underrun puts silence within a block
    steps = np.diff(numbers)
    latencies = [latency for each in recordings for latency in latencies_in(*each, sent_at)]
    found |= {
        "heard": len(numbers),
        "in_order": bool(np.all(steps > 0)),
        "lost": int((steps - 1).clip(min=0).sum()),
        "latency_ms": [round(float(x) * 1e3, 1) for x in np.percentile(latencies, (5, 50, 95))],
        "counts": counts,
    }
    try:
        LoopbackCard("hw:CARD=none,DEV=0", lambda *_: None).open()
    except MicrophoneUnavailable as fault:
        found["missing"] = str(fault)
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
