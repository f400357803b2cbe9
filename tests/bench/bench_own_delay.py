"""The relay's own share of the delay, for sources of several frame rates, with its two halves.

    python tests/bench/bench_own_delay.py [RATE ...] [--direct] [--warm-up S] [--seconds S]

For each RATE (25 and 30 by default, "all" for eight, two of them variable) a whole relay plays a
made clip against an emulator in a process of its own, over WebRTC on the loopback interface. It
prints p50 and p95 in ms of decoded-to-sent, of received-to-shown and of their sum, glass to glass,
the frame rate of the outputs, and how often each gap came.

With --direct there is no relay: the pacer and the output clock with their real threads, a thread
that makes the source's pictures, and one that returns each sent picture 70 ms later. That shows
their own share on a machine too busy for a relay, without the transport's jitter. To compare with
an earlier version, run this file with PYTHONPATH set to that version's folder.
"""

import argparse
import asyncio
import os
import random
import tempfile
import threading
import time
from collections import deque
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from relayd import logs
from relayd.akool.connect import connect, open_journal
from relayd.commands.demo import emulator, settings_for, upload_face
from relayd.media.delay import Spread
from relayd.media.frames import (
    Geometry,
    OutputFrame,
    SourceFrame,
    StandbyFrame,
    SwappedFrame,
    black,
)
from relayd.media.slots import LatestSlot
from relayd.output.clock import OutputClock, Shown
from relayd.relay.recent import Recent, spread_of_sum
from relayd.relay.relay import Relay
from relayd.source.pacer import Pacer

RATES = ("20", "24", "25", "30", "50", "60", "25-35", "15-60")
"""Frames a second; "25-35" has intervals from 1/35 to 1/25 s at random."""
WARM_UP = 35.0
"""s until the phases of the clocks have met; 31 in the worst case."""
SECONDS = 15.0
EDGES = (0.0, 0.035, 0.040, 0.045, 0.049, 0.051, 0.055, 0.060, 0.065, 0.1, 9.0)
"""s, of the gaps' histogram."""
SIZE = 320, 240
TIME_BASE = Fraction(1, 90_000)
RETURN_AFTER = 0.07
"""s that a picture is away in a direct run."""


class Recorder:
    """An output that only notes when it was given a frame."""

    name = "bench"

    def __init__(self) -> None:
        self.at: list[float] = []

    def open(self) -> None:
        """Nothing to open."""

    def show(self, _frame: OutputFrame) -> None:
        """Note the time."""
        self.at.append(time.monotonic())

    def close(self) -> None:
        """Nothing to close."""


def times_of(rate: str, seconds: float) -> list[float]:
    """Return the times of a source's pictures from 0 to `seconds`."""
    rng = random.Random(7)
    slowest, _, fastest = rate.partition("-")
    if not fastest:
        return [number / float(rate) for number in range(round(seconds * float(rate)))]
    times = [0.0]
    while times[-1] < seconds:
        times.append(times[-1] + rng.uniform(1 / float(fastest), 1 / float(slowest)))
    return times


def make_clip(path: Path, rate: str, seconds: float) -> None:
    """Write a clip in which no two pictures are the same: clouds that drift and turn."""
    noise = np.random.default_rng(7).integers(0, 255, (24, 96)).astype(np.uint8)
    wide = np.kron(noise, np.ones((20, 20), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=60)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.time_base = "yuv420p", TIME_BASE
        stream.codec_context.time_base = TIME_BASE
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "30"}
        for at in times_of(rate, seconds):
            left = round(300 + 280 * np.sin(at * 1.3) + 250 * np.sin(at * 0.37))
            top = round(100 + 90 * np.sin(at * 0.91))
            picture = wide[top : top + SIZE[1], abs(left) : abs(left) + SIZE[0]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = round(at / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


async def measure(rate: str, warm_up: float, seconds: float) -> None:
    """Run one relay and print a row."""
    with tempfile.TemporaryDirectory() as state:
        clip = Path(state) / "clip.mkv"
        await asyncio.to_thread(make_clip, clip, rate, warm_up + seconds + 15)
        async with emulator() as service:
            face = await upload_face("", service)
            settings = settings_for(service, face, str(clip), [], state)
            recorder = Recorder()
            async with connect(settings) as client:
                relay = Relay(
                    settings, "bench", client, open_journal(settings), more_outputs=[recorder]
                )
                await _run(relay, recorder, rate, warm_up, seconds)


async def _run(relay: Relay, recorder: Recorder, rate: str, warm_up: float, seconds: float) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    while relay.status().state.value != "live":
        await asyncio.sleep(0.1)
    await asyncio.sleep(warm_up)
    pipeline = relay.pipeline
    pipeline._send_ages, pipeline._show_ages = Recent(60.0), Recent(60.0)
    pipeline._meter._delays.clear()
    first, before = len(recorder.at), relay.status()
    await asyncio.sleep(seconds)
    at, after = recorder.at[first:], relay.status()
    sent, shown = pipeline._send_ages.numbers(), pipeline._show_ages.numbers()
    stop.set()
    await running
    fresh, repeated = (after.frames[name] - before.frames[name] for name in ("fresh", "repeated"))
    _print_row(rate, (sent, shown), after.delay, at, (fresh, repeated))


def measure_directly(rate: str, warm_up: float, seconds: float) -> None:
    """Run pacer and output clock alone, and print a row."""
    geometry = Geometry(640, 480)
    picture, recorder = black(geometry), Recorder()
    source: LatestSlot[SourceFrame] = LatestSlot()
    swapped: LatestSlot[SwappedFrame] = LatestSlot()
    away: deque[float] = deque()
    sent: list[float] = []
    shown: list[float] = []
    kinds: list[Shown] = []
    stop = threading.Event()

    def send(frame: SourceFrame) -> None:
        now = time.monotonic()
        away.append(now + RETURN_AFTER)
        sent.append(now - frame.captured_at)

    def note(frame: OutputFrame, kind: Shown, at: float) -> None:
        kinds.append(kind)
        if kind is Shown.FRESH and isinstance(frame, SwappedFrame):
            shown.append(at - frame.received_at)

    def return_pictures() -> None:
        while not stop.is_set():
            time.sleep(max(0.0, away[0] - time.monotonic()) if away else RETURN_AFTER / 2)
            while away and away[0] <= time.monotonic():
                away.popleft()
                swapped.put(SwappedFrame(picture, time.monotonic()))

    standby = StandbyFrame(picture, "standby")
    output_clock = OutputClock([recorder], swapped, standby, fps=20.0, on_shown=note)
    pacer = Pacer(source, send, 20.0, max_age=3.0)
    returning = threading.Thread(target=return_pictures)
    begin = time.monotonic()
    for thread in (output_clock, pacer, returning):
        thread.start()
    starts: tuple[int, ...] = (0, 0, 0, 0)
    for due in times_of(rate, warm_up + seconds):
        time.sleep(max(0.0, begin + due - time.monotonic()))
        if due >= warm_up and not any(starts):
            starts = len(sent), len(shown), len(recorder.at), len(kinds)
        source.put(SourceFrame(picture, time.monotonic()))
    stop.set()
    pacer.stop()
    output_clock.stop()
    returning.join()
    of_sent, of_shown, of_at, of_kinds = starts
    counted = kinds[of_kinds:].count(Shown.FRESH), kinds[of_kinds:].count(Shown.REPEATED)
    _print_row(rate, (sent[of_sent:], shown[of_shown:]), Spread(), recorder.at[of_at:], counted)


def _print_row(
    rate: str,
    ages: tuple[list[float], list[float]],
    glass_to_glass: Spread,
    at: list[float],
    counts: tuple[int, int],
) -> None:
    halves = [*map(_spread, ages), spread_of_sum(*ages), glass_to_glass]
    gaps = np.histogram([later - earlier for earlier, later in pairwise(at)], EDGES)[0]
    print(
        f"{rate:>6}",
        *(f"{_ms(half.p50):>5} {_ms(half.p95):>5} |" for half in halves),
        f"{(len(at) - 1) / (at[-1] - at[0]):7.3f} {counts[0]:5} {counts[1]:4} |",
        *(f"{count:5}" for count in gaps),
        flush=True,
    )


def _spread(numbers: list[float]) -> Spread:
    p50, p95 = np.percentile(numbers, (50, 95))
    return Spread(float(p50), float(p95), len(numbers))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"


def main() -> None:
    """Measure each rate in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rates", nargs="*", default=("25", "30"))
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--warm-up", type=float, default=WARM_UP)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args()
    logs.configure("warning")
    print(f"load {os.getloadavg()[0]:.1f} at the start; ms, p50 and p95")
    print(
        "source   to send    |   to show     |     sum     | glass to glass |    fps fresh rep. |"
    )
    print(" " * 87 + "gaps below", *(f"{edge * 1e3:5.0f}" for edge in EDGES[1:]))
    for rate in RATES if args.rates == ["all"] else args.rates:
        if args.direct:
            measure_directly(rate, args.warm_up, args.seconds)
        else:
            asyncio.run(measure(rate, args.warm_up, args.seconds))


if __name__ == "__main__":
    main()
