"""Sound over WebRTC: its delay, and what it costs; and what the path does to both.

    python -m tests.bench.bench_rtc_sound

First two connected peers in one process, as link and emulator: seconds from the push of a beep
until it is handed out, and the CPU time of both ends. Then the playout alone in simulated time,
behind paths that lose, delay and hold up packets.
"""

import asyncio
import random
import time
from collections.abc import Sequence

import numpy as np

from relayd.media.frames import Geometry
from relayd.rtc.webrtc.engine import PeerState
from relayd.rtc.webrtc.engine_aiortc import AiortcPeer
from relayd.rtc.webrtc.playout import Playout
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, RATE, Samples, silence

SECONDS, IDLE_SECONDS = 20, 5
PERIOD_BLOCKS, BEEP_BLOCKS = 25, 5
LOUD = 3000
PACKET = 960


def beep(number: int) -> Samples:
    at = number * BLOCK + np.arange(BLOCK)
    wave = (np.sin(2 * np.pi * 1000 * at / RATE) * 12000).astype(np.int16)
    return wave if number % PERIOD_BLOCKS < BEEP_BLOCKS else silence()


async def live(loss: float) -> None:
    heard: list[float] = []
    last_level = [0]

    def listen(samples: Samples, _at: float) -> None:
        level = int(np.abs(samples).max())
        if level > LOUD >= last_level[0]:
            heard.append(time.monotonic() + int(np.argmax(np.abs(samples) > LOUD)) / RATE)
        last_level[0] = level

    def peer(**options: object) -> AiortcPeer:
        return AiortcPeer(
            geometry=Geometry(320, 240),
            fps=20,
            bitrate_kbit=1000,
            on_state=lambda _state: None,
            **options,  # type: ignore[arg-type]  # of several types
        )

    sender, receiver = peer(sends_sound=True), peer(on_sound=listen)
    await sender.accept_answer(await receiver.answer(await sender.offer_sending()))
    while not sender.state is receiver.state is PeerState.CONNECTED:
        await asyncio.sleep(0.01)
    sender.lose_sound(loss)
    sent_at = []
    idle = time.process_time()
    for _ in range(round(IDLE_SECONDS / BLOCK_SECONDS)):
        await asyncio.sleep(BLOCK_SECONDS)
    idle = (time.process_time() - idle) / IDLE_SECONDS
    begun = time.monotonic()
    used = time.process_time()
    for number in range(round(SECONDS / BLOCK_SECONDS)):
        at = begun + number * BLOCK_SECONDS
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        if number % PERIOD_BLOCKS == 0:
            sent_at.append(at)
        sender.push_sound(beep(number), at)
    used = time.process_time() - used
    stats = await sender.stats()
    await sender.close()
    await receiver.close()
    onsets = np.array(sent_at)
    lags = [one - onsets[onsets <= one].max() for one in heard if (onsets <= one).any()]
    middle, most = np.percentile(lags, [50, 95]) * 1e3
    print(
        f"loss {loss:4.0%}: push to hand-out p50 {middle:5.1f} ms, p95 {most:5.1f} ms;"
        f" both ends {used / SECONDS - idle:.1%} of a core more"
        f" than the {idle:.1%} without sound; {stats.bytes * 8e-3 / SECONDS:.0f} kbit/s"
    )


def simulated(name: str, late: Sequence[float | None]) -> None:
    """`late`: seconds that each packet needs; None for a lost one."""
    playout = Playout(lambda payload: np.full(PACKET, int.from_bytes(payload, "big"), np.int16))
    arrivals = sorted(
        (number * PACKET / RATE + need, number)
        for number, need in enumerate(late)
        if need is not None
    )
    delays: dict[int, float] = {}

    def play(until: float) -> None:
        while playout.due <= until:
            for samples, at in playout.take(playout.due):
                if samples[-1] and samples[-1] == samples[BLOCK // 2]:
                    number = int(samples[-1]) - 1
                    delays.setdefault(number, at - number * PACKET / RATE)

    for at, number in arrivals:
        play(at)
        playout.put(number, (number + 1).to_bytes(2, "big"), at)
    play(1e9)
    counts = playout.counts
    middle, most = np.percentile(list(delays.values()), [50, 95]) * 1e3
    print(
        f"{name:34} delay p50 {middle:5.0f} p95 {most:5.0f} ms,"
        f" at the end {delays[max(delays)] * 1e3:5.0f};"
        f" played {counts.played / len(late):6.1%}, lost {counts.lost}, left out {counts.left_out},"
        f" dried {counts.dried}"
    )


def main() -> None:
    for loss in (0.0, 0.05):
        asyncio.run(live(loss))
    rng = random.Random(1)
    count = 3000  # a minute
    simulated("even", [0.02] * count)
    for loss in (0.01, 0.05, 0.2):
        simulated(f"loss {loss:.0%}", [None if rng.random() < loss else 0.02 for _ in range(count)])
    for most in (0.01, 0.02, 0.04, 0.08):
        simulated(
            f"jitter 0 to {most * 1e3:.0f} ms", [0.02 + rng.random() * most for _ in range(count)]
        )
    simulated(
        "loss 2 %, jitter 0 to 20 ms",
        [None if rng.random() < 0.02 else 0.02 + rng.random() * 0.02 for _ in range(count)],
    )
    held = [0.02 + max(0.0, 0.5 - (number % 500) * 0.02) for number in range(count)]
    simulated("held up 0.5 s, each 10 s", held)
    simulated("slower by 0.15 s for 5 s", [0.17 if 500 < n < 750 else 0.02 for n in range(1500)])


if __name__ == "__main__":
    main()
