"""What the Agora link costs a frame inside the worker, beside a bare copy of the picture.

    python tests/bench/bench_agora.py [SECONDS]

Through the real wrapper over the stand-in of its native library, paced at 20 fps: the stand-in
copies and sends each picture, it neither encodes nor decodes. The peer is numpy copying the same
460 800 bytes from and to memory that is as cold, in the same loop.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "tests" / "media"
APP, CHANNEL, TOKEN = "app", "bench", "token"
FPS = 20.0
WARM_UP = 2.0
"""s before anything is counted."""

Seconds = dict[str, list[float]]


def measure(seconds: float) -> None:
    """Start the cloud, and the part that is timed in a process that has the wrapper."""
    from tests.agora.cloud import Cloud  # noqa: PLC0415 - not for the timed process
    from tests.agora.inverter import Inverter  # noqa: PLC0415 - as above
    from tests.agora.library import build_site  # noqa: PLC0415 - as above

    (sdist,) = MEDIA.glob("agora_python_server_sdk-*.tar.gz")
    site = build_site(sdist, MEDIA / "agora-site")
    with Cloud() as cloud:
        cloud.open(CHANNEL, app_id=APP, token=TOKEN)
        with Inverter(cloud.path, app_id=APP, channel=CHANNEL, token=TOKEN):
            subprocess.run(
                [sys.executable, __file__, str(seconds), "inside"],
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{site}", "XDG_AGORA_HUB": cloud.path},
                check=True,
            )


def measure_inside(seconds: float) -> None:
    """Run one link at 20 fps and print what each step took."""
    from agora.rtc.local_user import VideoFrameObserverInner  # noqa: PLC0415 - timed process

    from relayd.media.frames import Geometry  # noqa: PLC0415 - as above
    from relayd.media.slots import SharedSlot  # noqa: PLC0415 - as above
    from relayd.rtc.agora.link import AgoraLink  # noqa: PLC0415 - as above
    from relayd.rtc.agora.planes import Packer  # noqa: PLC0415 - as above
    from relayd.rtc.agora.sdk import Channel  # noqa: PLC0415 - as above
    from relayd.rtc.link import LinkTarget  # noqa: PLC0415 - as above

    took: Seconds = defaultdict(list)
    geometry = Geometry(640, 480)
    slot = SharedSlot.create(geometry, "bench")
    for owner, name, label in (
        (AgoraLink, "publish", "out: hand over to the control thread"),
        (Channel, "push", "out: push_video_frame, with the stand-in's copy and send"),
        (VideoFrameObserverInner, "_on_frame", "in: callback, three planes copied by the wrapper"),
        (Packer, "pack", "in: pack into one picture"),
        (SharedSlot, "write", "in: write into shared memory"),
    ):
        _time(owner, name, took[label])
    with tempfile.TemporaryDirectory() as state:
        target = LinkTarget(
            kind="agora",
            channel_id=CHANNEL,
            front_user_id="1",
            algorithm_user_id="3",
            token=TOKEN,
            geometry=geometry,
            fps=FPS,
            bitrate_kbit=5000,
            token_age=0.0,
            session_id="bench",
            app_id=APP,
            state_directory=state,
            publish_url="",
            play_url="",
        )
        link = AgoraLink(target, slot.write, lambda _event: None)
        link.join()
        grown = _pump(link.publish, geometry.shape, seconds, took)
        link.leave(time.monotonic() + 3)
    _print(took, grown)
    sys.stdout.flush()
    os._exit(0)


def _time(owner: type, name: str, into: list[float]) -> None:
    inner = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = inner(*arguments)
        into.append(time.perf_counter() - began)
        return result

    setattr(owner, name, timed)


def _pump(
    publish: Callable[[np.ndarray, float], None],
    shape: tuple[int, int],
    seconds: float,
    took: Seconds,
) -> float:
    """Publish at 20 fps; returns the MiB that the process grew by after the warm-up."""
    pictures = [np.full(shape, shade, np.uint8) for shade in range(40)]
    copy, process = np.empty(shape, np.uint8), psutil.Process()
    peer = took["peer: a copy of the picture"]
    began, settled = time.monotonic(), 0
    for number in range(round((WARM_UP + seconds) * FPS)):
        time.sleep(max(0.0, began + number / FPS - time.monotonic()))
        if number == round(WARM_UP * FPS):
            settled = process.memory_info().rss
            for each in took.values():
                each.clear()
        publish(pictures[number % len(pictures)], time.monotonic())
        before = time.perf_counter()
        np.copyto(copy, pictures[(number + 20) % len(pictures)])
        peer.append(time.perf_counter() - before)
    return (process.memory_info().rss - settled) / 2**20


def _print(took: Seconds, grown: float) -> None:
    peer = float(np.median(took["peer: a copy of the picture"]))
    print(f"{'':58} {'median':>8} {'p99':>8} {'ratio':>6}")
    for label, times in took.items():
        median, p99 = np.percentile(times, (50, 99)) * 1e6
        print(f"{label:58} {median:5.0f} µs {p99:5.0f} µs {median / 1e6 / peer:6.1f}")
    print(f"frames {len(took['in: pack into one picture'])}, memory {grown:+.2f} MiB")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    wanted = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    measure_inside(wanted) if sys.argv[2:] == ["inside"] else measure(wanted)
