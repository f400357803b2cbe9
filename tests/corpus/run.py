"""Opens every sample with relayd and with the ffmpeg program, and compares: `make corpus`.

A sample counts as shown if its first picture comes out. Prints a table by container and codec, and
each file that ffmpeg shows and relayd does not, with relayd's words.
    python -m tests.corpus.run [FOLDER_OR_FILE ...]
Without arguments it takes the samples that tests/corpus/samples.py fetches.
"""

import json
import os
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import IO

from relayd.errors import SourceError
from relayd.media.causes import explained
from relayd.media.decode import VideoInput
from relayd.media.frames import Geometry
from relayd.media.symptoms import Asked
from relayd.source.inspection import inspect
from tests.corpus.samples import fetch

TOO_LONG = 30.0
"""s for one sample."""
WORKERS = 2
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "relayd-corpus"
_INPUT = re.compile(r"^Input #0, (\S+), from", re.MULTILINE)
_VIDEO = re.compile(r"Stream #0:\d+.*: Video: (\w+)")
_PICTURES = re.compile(r"frame= *(\d+)")


@dataclass(frozen=True)
class Result:
    """What became of one sample."""

    sample: str
    ffmpeg: bool
    container: str
    codec: str
    ffmpeg_words: str
    relayd: bool
    relayd_words: str


def main(paths: list[str]) -> None:
    """Compare all samples, and print what was found."""
    samples = [found for path in paths for found in _files(Path(path))] or fetch(CACHE)
    report = CACHE / "results.jsonl"
    report.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(WORKERS) as pool, report.open("w") as file:
        shares = (samples[number::WORKERS] for number in range(WORKERS))
        parts = pool.map(lambda share: list(compare(share, file)), shares)
        results = [one for part in parts for one in part]
    print_table(results)
    for one in results:
        if one.ffmpeg and not one.relayd:
            print(f"ONLY FFMPEG {one.sample} ({one.container}, {one.codec}): {one.relayd_words}")
    print(f"all results: {report}")


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def compare(samples: list[Path], report: IO[str]) -> Iterator[Result]:
    """Open each sample both ways, and write each result to the report at once."""
    opener = Opener()
    try:
        for sample in samples:
            result = Result(str(sample), *by_ffmpeg(sample), *opener.open(sample))
            report.write(json.dumps(asdict(result)) + "\n")
            report.flush()
            yield result
    finally:
        opener.close()


def by_ffmpeg(sample: Path) -> tuple[bool, str, str, str]:
    """Whether ffmpeg shows a picture; container, codec, its last words."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-i", f"file:{sample}"]
    command += ["-map", "0:v", "-frames:v", "1", "-f", "null", "-"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=TOO_LONG)
    except subprocess.TimeoutExpired:
        return False, sample.suffix, "?", "too long"
    said = done.stderr.decode("utf-8", "replace")
    container, codec = _INPUT.search(said), _VIDEO.search(said)
    counts = _PICTURES.findall(said)
    return (
        bool(counts) and int(counts[-1]) > 0,
        container[1] if container else f"({sample.suffix})",
        codec[1] if codec else "-",
        said.strip().splitlines()[-1] if said.strip() else "",
    )


class Opener:
    """A process that opens samples with relayd one by one; started again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, sample: Path) -> tuple[bool, str]:
        """Whether relayd shows a picture, and what it says if not."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.corpus.run", "--opener"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{sample}\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], TOO_LONG)[0]:
            self.close()
            return False, "too long"
        if line := self._process.stdout.readline():
            shown, words = json.loads(line)
            return shown, words
        self._process.wait()
        status = self._process.returncode
        self.close()
        return False, f"CRASH: ended with status {status}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve_openings() -> None:
    """Open each sample named on stdin, and answer with a line of JSON."""
    for line in sys.stdin:
        answer = show_one(line.rstrip("\n"))
        print(json.dumps(answer), flush=True)


def show_one(path: str) -> tuple[bool, str]:
    """Decode the first picture of a sample; the reason if that fails."""
    try:
        source = VideoInput.open(path, geometry=Geometry(640, 480))
        try:
            picture = next(source.pictures(), None)
            if picture is None:
                return False, "no picture"
            picture.i420()
        finally:
            source.close()
    except SourceError as error:
        asked = Asked(path, path, {}, live=False)
        facts = inspect(error.symptom, asked, Event()) if error.symptom else None
        return False, str(explained(error, asked, facts) if facts else error)
    return True, ""


def print_table(results: list[Result]) -> None:
    """Print the counts by container and codec, the most frequent first."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for one in results:
        row = counts.setdefault((one.container, one.codec), Counter())
        row[_outcome(one)] += 1
    columns = ("both", "only ffmpeg", "only relayd", "neither")
    print(f"| container | codec | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for (container, codec), row in sorted(counts.items(), key=lambda item: -item[1].total()):
        print(f"| {container} | {codec} | {' | '.join(str(row[name]) for name in columns)} |")
    total = Counter(_outcome(one) for one in results)
    print(f"| all {len(results)} | | {' | '.join(str(total[name]) for name in columns)} |")


def _outcome(one: Result) -> str:
    if one.ffmpeg:
        return "both" if one.relayd else "only ffmpeg"
    return "only relayd" if one.relayd else "neither"


if __name__ == "__main__":
    if sys.argv[1:] == ["--opener"]:
        serve_openings()
    else:
        main(sys.argv[1:])
