"""What reading a video costs beside the ffmpeg command, with as many threads, for the same work.

    python tests/bench/bench_ingest.py [SECONDS]

Each clip is read and fitted to 640x480 in BT.601 by a process of relayd's code and by ffmpeg, in
turns; the CPU time of both (user and system) is given as the share of a core that a source of that
rate takes. The last lines say what deinterlacing and HDR cost relayd on top of the same decoding.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from relayd.media.decoder import FILE_THREADS

ROUNDS = 3
READ = """
import sys
from relayd.media.decode import VideoInput
from relayd.media.frames import Geometry
source = VideoInput.open(sys.argv[1], geometry=Geometry(640, 480), fit="crop")
for picture in source.pictures():
    if sys.argv[2] == "fit":
        picture.i420()
source.close()
"""
TO_BT601 = "scale=640:480:flags=bilinear:in_color_matrix={matrix}:out_color_matrix=bt601"


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip, how it is written, and what ffmpeg does with it."""

    name: str
    source: str
    encoder: tuple[str, ...]
    filters: str


def clips() -> list[Clip]:
    """Return what is read."""
    x264 = ("-c:v", "libx264", "-preset", "veryfast", "-b:v", "4M", "-pix_fmt", "yuv420p",
            "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")  # fmt: skip
    x265 = ("-c:v", "libx265", "-preset", "ultrafast", "-b:v", "6M", "-pix_fmt", "yuv420p10le",
            "-x265-params", "log-level=error:colorprim=bt2020:transfer={}:colormatrix=bt2020nc",
            )  # fmt: skip
    noise = "testsrc2=s={}:r={},noise=alls=6:allf=t"
    crop = "crop={}:{},"
    return [
        Clip("720p30", noise.format("1280x720", 30), x264,
             crop.format(960, 720) + TO_BT601.format(matrix="bt709")),
        Clip("1080p30", noise.format("1920x1080", 30), x264,
             crop.format(1440, 1080) + TO_BT601.format(matrix="bt709")),
        Clip("1080i25", noise.format("1920x1080", 50),
             ("-vf", "tinterlace=interleave_top", "-flags", "+ilme+ildct", *x264),
             "bwdif=send_frame," + crop.format(1440, 1080) + TO_BT601.format(matrix="bt709")),
        *(
            Clip(name, noise.format("1920x1080", 30),
                 tuple(one.format(curve) for one in x265),
                 crop.format(1440, 1080) + "zscale=640:480:filter=bilinear:t=linear:npl=203,"
                 "format=gbrpf32le,zscale=p=bt709,tonemap=clip:desat=0,"
                 "zscale=t=bt709:m=170m:r=tv")
            for name, curve in (("1080p30 HLG", "arib-std-b67"), ("1080p30 PQ", "smpte2084"))
        ),
    ]  # fmt: skip


def write(clip: Clip, folder: Path, seconds: float) -> Path:
    """Write a clip."""
    path = folder / f"{clip.name.replace(' ', '_')}.mkv"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", clip.source,
               "-t", str(seconds), *clip.encoder, str(path)]  # fmt: skip
    subprocess.run(command, check=True)
    return path


def cpu(command: list[str]) -> float:
    """Run a command and return its CPU time in seconds."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": "."}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0, command
    return usage.ru_utime + usage.ru_stime


def measure(clip: Clip, folder: Path, seconds: float) -> str:
    """Return a line of the table."""
    path = write(clip, folder, seconds)
    ffmpeg = ["ffmpeg", "-nostdin", "-v", "error", "-threads", str(FILE_THREADS), "-i", str(path),
              "-filter_threads", "1", "-vf", f"{clip.filters},format=yuv420p", "-an",
              "-f", "rawvideo", "-y", "/dev/null"]  # fmt: skip
    relayd = [sys.executable, "-c", READ, str(path)]
    start = cpu([sys.executable, "-c", "import relayd.media.decode"])
    ours, theirs, decoding = (
        min(cpu(command) for _ in range(ROUNDS))
        for command in ([*relayd, "fit"], ffmpeg, [*relayd, "decode"])
    )
    ours, decoding = ours - start, decoding - start
    return (
        f"{clip.name:14} {ours / seconds:8.1%} {theirs / seconds:8.1%} {ours / theirs:7.2f}"
        f" {(ours - decoding) / seconds:14.1%}"
    )


if __name__ == "__main__":
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    print(f"{'':14} {'relayd':>8} {'ffmpeg':>8} {'ratio':>7} {'of it: fitting':>14}")
    with tempfile.TemporaryDirectory() as room:
        for one in clips():
            print(measure(one, Path(room), length), flush=True)
