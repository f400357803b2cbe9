"""Lip sync of a whole relay, and what sound costs.

    python tests/bench/bench_lip_sync.py [--steady S] [--after S] [--cost S] [--only file|live|cost]
                                         [--microphone pulseaudio|pipewire]

A clip with a person, a lamp that lights for 0.12 s each 1.04 s and a beep of 1 kHz that begins with
it is played through a relay and an emulator in a process of its own. What the camera and the
microphone would be given is compared as it comes; the recording is compared afterwards. An offset
is how much later than the light the beep is. Each row has p5, p50 and p95 in ms, how many there
were, and after how many seconds all that followed were within -20 to +60 ms.

First the clip is a file: steady, then pictures come back 0.25 s later, then as before, then the
relay changes its session. Then it is a live stream (MPEG-TS over UDP), whose muxer sends the sound
up to 0.3 s after its pictures, while the service takes 0.35 s longer, as Akool's takes 0.3 to
0.8 s in all: steady, then it is away for four seconds. Last, two relays without and two with sound
run in turn.

With --microphone, the file's sound is what another program records from the microphone that relayd
makes in a real sound server without a card, rather than what relayd hands over.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import Any

import httpx
import numpy as np
import psutil

from relayd import logs
from relayd.commands.demo import emulator, settings_for, upload_face
from relayd.commands.lip_sync import LipSyncMeter
from relayd.config.settings import Settings
from relayd.relay.status import RelayStatus
from relayd.sound.blocks import BLOCK, BLOCK_SECONDS, AudibleSound
from tests.support.lamp_clip import EVERY, FPS, make_clip
from tests.support.lip_sync import GEOMETRY, decoded, measured
from tests.support.live_relay import live_relay
from tests.support.sound_server import Kind, SoundServer
from tests.support.stage import free_port

WARM_UP = 20.0
"""s from the first live picture to the first figure."""
STEP = 0.25
"""s by which pictures come back later for a while."""
SERVICE = 0.35
"""s by which pictures of the live source come back later than the emulator would send them."""
AWAY = 4.0
"""s that the live source is away."""
MICROPHONE = "bench_microphone"
GOOD = -0.02, 0.06
"""s, the goal."""
SETTLED = 2.0
"""s after which offsets should be good again."""


@dataclass
class Timeline:
    """What happened when, in monotonic seconds."""

    began: float
    parts: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, name: str) -> None:
        """A part begins; the one before it ends."""
        self.parts.append((name, time.monotonic()))

    def table(self, title: str, measured: Sequence[tuple[float, float]]) -> None:
        """Print a row for each part."""
        ends = [start for _, start in self.parts[1:]] + [float("inf")]
        for (name, start), end in zip(self.parts, ends, strict=True):
            if not name:
                continue
            inside = [(at - start, offset) for at, offset in measured if start <= at < end]
            print(f"{title:22} {name:18}", _row(inside), flush=True)


def _row(offsets: Sequence[tuple[float, float]]) -> str:
    if not offsets:
        return "nothing measured"
    p5, p50, p95 = np.percentile([offset for _, offset in offsets], (5, 50, 95)) * 1e3
    bad = [after for after, offset in offsets if not GOOD[0] <= offset <= GOOD[1]]
    later = [offset for after, offset in offsets if after > SETTLED]
    good = sum(GOOD[0] <= offset <= GOOD[1] for offset in later)
    return (
        f"{p5:+5.0f} {p50:+5.0f} {p95:+5.0f}  of {len(offsets):3}"
        f"  last outside after {max(bad, default=0.0):4.1f} s"
        f"  {good} of {len(later)} within after {SETTLED:g} s"
    )


class Camera:
    """What a camera would be given, for a meter that hears a real microphone."""

    name = "camera"

    def __init__(self, meter: LipSyncMeter) -> None:
        self.show = meter.show

    def open(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def microphone_server(kind: Kind | None, folder: Path) -> Iterator[SoundServer | None]:
    """Run a sound server that relays in this process find."""
    if kind is None:
        yield None
        return
    server = SoundServer(kind, folder / "runtime")
    server.start()
    os.environ["XDG_RUNTIME_DIR"] = server.environment["XDG_RUNTIME_DIR"]
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def hearing(server: SoundServer | None, meter: LipSyncMeter) -> Iterator[None]:
    """Let the meter hear what another program records from the microphone."""
    if server is None:
        yield
        return
    stop = Event()
    with server.recording(MICROPHONE) as take:

        def listen() -> None:
            while not stop.is_set():
                samples = take(BLOCK_SECONDS)
                if len(samples) == BLOCK:
                    meter.play(AudibleSound(samples, 0.0))

        thread = Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _settings(
    service: str,
    face: str,
    source: str,
    folder: Path,
    *,
    sound: bool,
    session: float = 0.0,
    microphone: bool = False,
) -> Settings:
    outputs = [{"kind": "stream", "url": str(folder / "out.mkv")}]
    if microphone:
        outputs.append({"kind": "microphone", "device": "pulse", "name": MICROPHONE})
    settings = settings_for(service, face, source, outputs, str(folder), sound=sound)
    if session:
        akool = settings.akool.model_copy(update={"session_max": session})
        settings = settings.model_copy(update={"akool": akool})
    return settings


async def measure_file(
    clip: Path, steady: float, after: float, microphone: Kind | None = None
) -> None:
    """Steady, a step of the delay up and down, and a rotation."""
    with tempfile.TemporaryDirectory() as state, contextlib.ExitStack() as stack:
        folder = Path(state)
        server = stack.enter_context(microphone_server(microphone, folder))
        async with emulator() as service:
            face = await upload_face("", service)
            session = WARM_UP + steady + 2 * after + 10
            meter = LipSyncMeter(GEOMETRY)
            settings = _settings(
                service,
                face,
                str(clip),
                folder,
                sound=True,
                session=session,
                microphone=bool(server),
            )
            watcher = Camera(meter) if server else meter
            async with live_relay(settings, watcher) as relay:
                listening = stack.enter_context(contextlib.ExitStack())
                listening.enter_context(hearing(server, meter))
                timeline = Timeline(time.monotonic())
                await asyncio.sleep(WARM_UP)
                timeline.begin("steady")
                await asyncio.sleep(steady)
                before = relay.status()
                await _fault(service, {"fault": "lag", "delay": STEP})
                timeline.begin(f"+{STEP:g} s")
                await asyncio.sleep(after)
                await _fault(service, None)
                timeline.begin(f"-{STEP:g} s")
                await asyncio.sleep(after)
                timeline.begin("")
                while relay.status().session_id == before.session_id:
                    await asyncio.sleep(0.05)
                timeline.begin("rotation")
                await asyncio.sleep(after)
                _print_status(relay.status())
                listening.close()
        _print(timeline, meter, folder, heard_after=BLOCK_SECONDS if server else 0.0)


async def measure_live(clip: Path, steady: float, after: float) -> None:
    """Steady, and a source that is away for some seconds."""
    port = free_port()
    with tempfile.TemporaryDirectory() as state:
        folder = Path(state)
        async with emulator() as service:
            face = await upload_face("", service)
            await _fault(service, {"fault": "lag", "delay": SERVICE})
            meter = LipSyncMeter(GEOMETRY)
            url = f"udp://127.0.0.1:{port}"
            settings = _settings(service, face, url, folder, sound=True)
            with contextlib.ExitStack() as sending:
                sending.enter_context(_sender(clip, port))
                async with live_relay(settings, meter) as relay:
                    timeline = Timeline(time.monotonic())
                    await asyncio.sleep(WARM_UP)
                    timeline.begin("live, steady")
                    await asyncio.sleep(steady)
                    timeline.begin("")
                    sending.close()
                    await asyncio.sleep(AWAY)
                    sending.enter_context(_sender(clip, port))
                    while relay.status().state.value != "live":
                        await asyncio.sleep(0.05)
                    timeline.begin("source back")
                    await asyncio.sleep(after)
                    _print_status(relay.status())
        _print(timeline, meter, folder)


@contextlib.contextmanager
def _sender(clip: Path, port: int) -> Iterator[None]:
    command = ["ffmpeg", "-v", "error", "-re", "-i", str(clip), "-c", "copy", "-f", "mpegts"]
    process = subprocess.Popen([*command, f"udp://127.0.0.1:{port}?pkt_size=1316"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _fault(service: str, fault: dict[str, Any] | None) -> None:
    async with httpx.AsyncClient() as client:
        url = f"{service}/emulator/faults"
        done = await (client.post(url, json=fault) if fault else client.delete(url))
        done.raise_for_status()


def _print(
    timeline: Timeline, meter: LipSyncMeter, folder: Path, *, heard_after: float = 0.0
) -> None:
    """Print what the meter saw and heard; a block is heard as it begins, before it can be read."""
    direct = [(at, offset - heard_after) for at, offset in meter.measurements()]
    timeline.table("camera, microphone", direct)
    (file,) = folder.glob("out*.mkv")
    recorded = measured(decoded(file)).measurements()
    if recorded and direct:
        # A recording has its own time; its last light is the last that was seen.
        shift = direct[-1][0] - recorded[-1][0]
        moved = [(at + shift, offset) for at, offset in recorded]
        timeline.table("recording", moved)
        _print_difference(direct, moved)


def _print_difference(
    direct: Sequence[tuple[float, float]], recorded: Sequence[tuple[float, float]]
) -> None:
    """Say how much later the sound is in the recording: no haste of the machine changes that."""
    differences = [
        (in_file - offset) * 1e3
        for at, offset in direct
        for at_in_file, in_file in recorded
        if abs(at_in_file - at) < EVERY / FPS / 2
    ]
    if differences:
        low, middle, high = np.percentile(differences, (5, 50, 95))
        print(f"recording - outputs    p5, p50, p95 {low:+.0f} {middle:+.0f} {high:+.0f} ms")


def _print_status(status: RelayStatus) -> None:
    for name, spread in (("glass to glass", status.delay), ("relayd's own", status.own_delay)):
        if spread.p50 is not None and spread.p95 is not None:
            print(f"{name:22} p50 {spread.p50 * 1e3:.0f} ms  p95 {spread.p95 * 1e3:.0f} ms")


def measure_costs(clip: Path, seconds: float) -> None:
    """Run relays without and with sound in turn, each in a process of its own."""
    for how in ("off", "on", "off", "on"):
        command = [sys.executable, __file__, "--cost-of", how, str(clip), "--cost", str(seconds)]
        subprocess.run(command, check=True)


async def measure_cost(clip: Path, seconds: float, *, sound: bool) -> None:
    """Print CPU and RSS of one relay, its worker and its pusher."""
    with tempfile.TemporaryDirectory() as state:
        async with emulator() as service:
            face = await upload_face("", service)
            settings = _settings(service, face, str(clip), Path(state), sound=sound)
            async with live_relay(settings) as relay:
                await asyncio.sleep(WARM_UP)
                before, threads = _usage(), _threads()
                await asyncio.sleep(seconds)
                print("sound on " if sound else "sound off", _costs(before, _usage(), seconds))
                print("  threads", _busiest(threads, _threads(), seconds))
                _print_status(relay.status())


def _threads() -> dict[str, float]:
    """CPU seconds by thread of this process."""
    names = {thread.native_id: thread.name for thread in enumerate_threads()}
    return {
        names.get(thread.id, "others"): thread.user_time + thread.system_time
        for thread in psutil.Process().threads()
    }


def _busiest(before: dict[str, float], after: dict[str, float], seconds: float) -> str:
    used = {name: (cpu - before.get(name, 0.0)) / seconds * 100 for name, cpu in after.items()}
    busiest = sorted(used.items(), key=lambda each: -each[1])[:6]
    return "  ".join(f"{name.removeprefix('relayd-')} {share:.1f} %" for name, share in busiest)


def _usage() -> dict[str, tuple[float, float]]:
    """CPU seconds and RSS in MiB by part; not the emulator, which is no part of a relay."""
    used: dict[str, tuple[float, float]] = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            name = next((n for n in ("emulator", "rtc.worker", "pusher") if n in line), "relay")
            times = process.cpu_times()
            cpu, rss = used.get(name, (0.0, 0.0))
            used[name] = (
                cpu + times.user + times.system,
                rss + process.memory_info().rss / 1024**2,
            )
    used.pop("emulator", None)
    return used


def _costs(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]], seconds: float
) -> str:
    shares = {n: (after[n][0] - before[n][0]) / seconds * 100 for n in after if n in before}
    parts = "  ".join(f"{n} {share:.1f} % {after[n][1]:.0f} MiB" for n, share in shares.items())
    rss = sum(after[n][1] for n in shares)
    return f"{sum(shares.values()):.1f} % of a core, {rss:.0f} MiB: {parts}"


async def _run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mkv"
        longest = max(WARM_UP + args.steady + 4 * args.after + 40, WARM_UP + args.cost + 20)
        await asyncio.to_thread(make_clip, clip, longest)
        if args.only in {"", "file"}:
            await measure_file(clip, args.steady, args.after, args.microphone)
        if args.only in {"", "live"}:
            await measure_live(clip, args.steady, args.after)
        if args.only in {"", "cost"}:
            await asyncio.to_thread(measure_costs, clip, args.cost)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steady", type=float, default=40.0)
    parser.add_argument("--after", type=float, default=15.0)
    parser.add_argument("--cost", type=float, default=30.0)
    parser.add_argument("--only", choices=("", "file", "live", "cost"), default="")
    parser.add_argument("--cost-of", nargs=2, help=argparse.SUPPRESS)  # what its children do
    parser.add_argument("--microphone", choices=("pulseaudio", "pipewire"))
    args = parser.parse_args()
    logs.configure("error")
    if args.cost_of:
        how, clip = args.cost_of
        asyncio.run(measure_cost(Path(clip), args.cost, sound=how == "on"))
        return
    print(f"load {os.getloadavg()[0]:.1f} at the start; offsets in ms: p5, p50, p95")
    asyncio.run(_run(args))
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
