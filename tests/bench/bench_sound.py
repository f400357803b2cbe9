"""What sound costs: each step by itself, then the whole beat in real time.

    python tests/bench/bench_sound.py [--seconds S] [--hour]

Prints the CPU time of each step in % of a core, and of the thread `relayd-sound` with a delay line
that is steered now and then, and how late its beats come. With
--hour it simulates an hour of speech instead, with steps and slow changes of the picture's delay,
and prints how far the sound was from the picture.
"""

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from relayd.sound.blocks import BLOCK_SECONDS, OwnSound, Samples
from relayd.sound.clock import SoundClock
from relayd.sound.follow import DelayFollower
from relayd.sound.gate import SoundGate
from relayd.sound.level import LevelMeter
from relayd.sound.line import DelayLine
from relayd.sound.returned import ReturnedBuffer
from relayd.sound.ring import SharedRing, SoundRing
from tests.support.voice import blocks_of, voice

BLOCKS = blocks_of(voice(20.0))
FPS = 20
SOURCE_DELAY = 0.02
"""s from the capture of a block to its arrival."""


def share(step: Callable[[int, Samples], object]) -> float:
    """Return the CPU time of `step(number, block)` in % of the time that the blocks last."""
    begin = time.process_time()
    for number, block in enumerate(BLOCKS):
        step(number, block)
    return (time.process_time() - begin) / len(BLOCKS) / BLOCK_SECONDS * 100


def line_steered(wanted: Callable[[int], float]) -> Callable[[int, Samples], object]:
    """Return a step that passes blocks through a line."""
    line = DelayLine()

    def step(number: int, block: Samples) -> Samples:
        line.steer(wanted(number))
        line.push(block, number * BLOCK_SECONDS)
        return line.pull(number * BLOCK_SECONDS + SOURCE_DELAY)

    return step


def print_steps() -> None:
    """Print a row for each step."""
    ring: SoundRing[OwnSound] = SoundRing(0.4)
    shared = SharedRing.create(0.1, "bench")
    meter, follower, returned = LevelMeter(), DelayFollower(), ReturnedBuffer()

    def through_ring(number: int, block: Samples) -> None:
        ring.put(OwnSound(block, float(number)))
        ring.take()

    def through_shared(number: int, block: Samples) -> None:
        shared.write(block, float(number))
        shared.read()

    def follow(number: int, _block: Samples) -> None:
        if number % 5 == 0:
            follower.note(0.4, number * BLOCK_SECONDS)
        follower.target()

    def through_returned(_number: int, block: Samples) -> None:
        returned.push(block, 0.0)
        returned.pull(0.0)

    steps = {
        "line, steady": line_steered(lambda _number: 0.45),
        "line, 1 % faster or slower": line_steered(lambda number: 0.4 + number // 250 % 2 * 0.035),
        "line, cut twice a second": line_steered(lambda number: 0.2 + number // 50 % 2 * 0.25),
        "ring in the process": through_ring,
        "ring between processes, both ends": through_shared,
        "follower": follow,
        "level": lambda _number, block: meter.add(block),
        "returned": through_returned,
    }
    print("CPU in % of a core")
    for name, step in steps.items():
        print(f"  {name:36} {share(step):5.2f}")
    shared.close()


def print_beat(seconds: float) -> None:
    """Run the beat in real time, with all that it does for one microphone, and print its cost."""
    ring: SoundRing[OwnSound] = SoundRing(0.4)
    line, meter, rng = DelayLine(), LevelMeter(), np.random.default_rng(1)
    gate, follower = SoundGate(line), DelayFollower()
    lates: list[float] = []
    number = 0

    def on_beat(due: float) -> None:
        nonlocal number
        lates.append(time.monotonic() - due)
        ring.put(OwnSound(BLOCKS[number % len(BLOCKS)], due - SOURCE_DELAY))
        if number % 5 == 0:
            follower.note(0.4 + 0.2 * (number // 500 % 2) + rng.uniform(0, 0.05), due)
        number += 1
        while (sound := ring.take()) is not None:
            gate.push(sound)
        if (target := follower.target()) is not None:
            line.steer(target)
        meter.add(gate.pull(due, due).samples)

    beat = SoundClock(on_beat)
    before = time.process_time()
    beat.start()
    time.sleep(seconds)
    beat.stop()
    used = (time.process_time() - before) / seconds * 100
    p50, p99 = np.percentile(lates, (50, 99)) * 1000
    print(f"beat in real time, {seconds:.0f} s: {used:.2f} % of a core;", end=" ")
    print(f"late p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {max(lates) * 1000:.1f} ms;", end=" ")
    print(f"{beat.counts.skipped} skipped; line {line.counts}")


def print_hour() -> None:
    """Simulate an hour: each 5 min a step, each 10 min a slow change of 0.2 s."""
    rng, follower, line = np.random.default_rng(3), DelayFollower(), DelayLine()
    delay, goal, late, since_step = 0.45, 0.45, [], []
    stepped_at = showing = 0.0
    for number in range(360_000):
        now = number * BLOCK_SECONDS
        if number and number % 30_000 == 0:
            delay = goal = rng.uniform(0.3, 0.8)
            stepped_at = now
            follower.forget()
        if number % 60_000 == 15_000:
            goal = delay + rng.uniform(-0.2, 0.2)
        delay += float(np.clip(goal - delay, -0.0067, 0.0067)) * BLOCK_SECONDS
        if number % 5 == 0:
            jitter = 0.018 * abs(rng.standard_normal())
            shown = np.ceil((now + delay + jitter) * FPS) / FPS  # at a tick of the output clock
            showing = shown - now
            follower.note(showing, shown)
        if (target := follower.target()) is not None:
            line.steer(target)
        line.push(BLOCKS[number % len(BLOCKS)], now)
        line.pull(now + SOURCE_DELAY)
        late.append(line.delay - showing)
        since_step.append(now - stepped_at)
    errors, since = np.array(late) * 1000, np.array(since_step)
    for name, part in (
        ("all but the 2 s after a step", errors[since >= 2]),
        ("the 2 s after a step", errors[(since < 2) & (since > 0)]),
    ):
        p1, p5, p50, p95, p99 = np.percentile(part, (1, 5, 50, 95, 99))
        within = np.mean((part > -20) & (part < 60)) * 100
        print(f"{name}: sound late by ms p1 {p1:.0f} p5 {p5:.0f} p50 {p50:.0f}", end=" ")
        print(f"p95 {p95:.0f} p99 {p99:.0f}; within -20 to +60 ms {within:.1f} %")
    print(line.counts)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--hour", action="store_true")
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    if args.hour:
        print_hour()
        return
    print_steps()
    print_beat(args.seconds)


if __name__ == "__main__":
    main()
