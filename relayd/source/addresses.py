"""What people write as a source's URL, as FFmpeg needs it.

FFmpeg knows schemes in lower case alone, takes `c:d.mp4` for a protocol `c`, decodes no percent
signs in file: URLs, and leaves `~` to the shell.
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

LAVFI: Final = "lavfi:"
_PREFIX: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_STDIN: Final = re.compile(r"pipe:(\d*)")
_DESCRIPTOR: Final = re.compile(r"-|/dev/stdin|/dev/fd/(\d+)")
VIDEO_MAJOR: Final = 81
"""The major device number of Video4Linux."""

Stat = Callable[[str], os.stat_result]
"""As os.stat: follows links, raises OSError or ValueError where there is nothing."""


def ffmpeg_url(text: str) -> str:
    """Return a URL or path as FFmpeg opens it; any text is accepted.

    A file that exists under exactly this name is opened, whatever else the name may mean.
    """
    if descriptor := _DESCRIPTOR.fullmatch(text):
        return f"pipe:{descriptor[1] or 0}"
    prefix = _PREFIX.match(text)
    if prefix is None:
        return str(_expanded(text)) if text.startswith("~") else text
    scheme, rest = prefix[0].lower(), text[prefix.end() + 1 :]
    if not rest.startswith("//") and _exists(text):
        return f"file:{text}"
    if scheme == "file":
        return _local_file(rest)
    return f"{scheme}:{rest}"


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in FFmpeg's form; empty for a path or a generator."""
    if is_pipe(url):
        return "pipe"
    try:
        return urlsplit(url).scheme if "://" in url else ""
    except ValueError:  # brackets that are not an IPv6 address
        return ""


def path_of(url: str) -> str:
    """Return the path of a URL in FFmpeg's form, or the local path itself; never the query."""
    if scheme_of(url) in ("", "file"):
        return url.removeprefix("file:")
    return urlsplit(url).path


def is_local(url: str) -> bool:
    """Whether it names a file or device of this machine."""
    return scheme_of(url) in ("", "file") and not url.startswith(LAVFI)


def is_pipe(url: str) -> bool:
    """Whether it names an open descriptor, such as standard input."""
    return _STDIN.fullmatch(url) is not None


def descriptor_of(url: str) -> int:
    """Return the number of the open descriptor that a pipe: URL names."""
    return int(url.removeprefix("pipe:") or 0)


def is_regular(url: str) -> bool:
    """Whether a pipe: URL leads to a plain file, as `relayd < clip.mp4` makes it."""
    try:
        return stat.S_ISREG(os.fstat(descriptor_of(url)).st_mode)
    except OSError:
        return False


def is_fifo(path: str, look: Stat = os.stat) -> bool:
    """Whether a path leads to a named pipe."""
    mode = _mode(path, look)
    return mode is not None and stat.S_ISFIFO(mode)


def is_capture_device(path: str, look: Stat = os.stat) -> bool:
    """Whether a path is, or leads by links to, a Video4Linux device.

    One in /dev that is missing counts as such: an unplugged camera takes its links with it.
    """
    try:
        found = look(path)
    except (OSError, ValueError):
        return path.startswith("/dev/")
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) == VIDEO_MAJOR


def _local_file(rest: str) -> str:
    """Return what follows `file:` as a path: `file:///a%20b` is decoded, `file:a%20b` is not."""
    if not rest.startswith("//"):
        return f"file:{_expanded(rest)}"
    path = rest.removeprefix("//")
    path = path.removeprefix("localhost") if path.startswith("localhost/") else path
    return f"file:{path if _exists(path) else unquote(path)}"


def _expanded(path: str) -> Path | str:
    if not path.startswith("~") or _exists(path):
        return path
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return path


def _exists(path: str) -> bool:
    return _mode(path, os.stat) is not None


def _mode(path: str, look: Stat) -> int | None:
    try:
        return look(path).st_mode
    except (OSError, ValueError):  # ValueError: a NUL in it
        return None
