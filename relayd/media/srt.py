"""SRT through the system's ffmpeg program, because the FFmpeg inside PyAV's wheels has no libsrt.

The program only carries ready bytes between a pipe and the peer; it encodes and decodes nothing.
The URL is an argument of the program, which every user of the machine can read. An output's
passphrase and streamid are therefore handed over as a preset file, on a descriptor. FFmpeg takes
none for an input: a source's could be hidden in a concat script (FFmpeg 5 knows no other way), but
that takes the stream apart and puts it together again, at the cost of 80 ms. So they are to be read
there, and `shows_secret` tells of it.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Final
from urllib.parse import unquote

from relayd.errors import OutputError, SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.logs import excerpt, redact
from relayd.process.child import Child
from relayd.process.descriptors import wait_readable
from relayd.urls.safe import is_secret_name

_FINISH_LIMIT: Final = 2.0
"""s that the program has to send what is left, at close."""
_POLL_INTERVAL: Final = 0.1
"""s between looks whether a silent peer is still waited for."""
_PROGRESS_BYTES: Final = 4096
_MOST_READ: Final = 16 * 1024
"""Bytes of what the program said that are looked at, the last ones."""
_LONGEST_EXPLANATION: Final = 200
"""Characters of the program's own explanation that are passed on."""
_PART_PREFIX: Final = re.compile(r"^\[\S+ @ 0x[0-9a-f]+\] ")
"""What FFmpeg puts before a line that one of its parts says."""
_BAD_SECRET: Final = "Incorrect passphrase"  # noqa: S105 - a message, no secret
"""libsrt's reason (SRT_REJ_BADSECRET), which FFmpeg itself calls an input/output error."""


_LONGEST_PRESET_LINE: Final = 900
"""Bytes; FFmpeg reads 999 at a time."""


def is_srt(url: str) -> bool:
    """Whether a URL is for this module."""
    return url.lower().startswith("srt://")


def shows_secret(url: str) -> bool:
    """Whether reading from this URL shows its secret to every user of this machine."""
    return is_srt(url) and bool(_split_secrets(url)[1])


def _split_secrets(url: str) -> tuple[str, list[str]]:
    """Part a URL from its secret options, each as a line of a preset file, decoded as in URLs."""
    before, mark, query = url.partition("?")
    plain, secret = [], []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        value = value.replace("+", " ")
        line = f"{name}={unquote(value) if name == 'streamid' else value}"
        fits = len(line.encode()) <= _LONGEST_PRESET_LINE and line.isprintable()
        if value and fits and is_secret_name(name):
            secret.append(line)
        else:
            plain.append(pair)
    rest = "&".join(plain)
    return f"{before}{mark if rest else ''}{rest}", secret


@contextmanager
def _preset(lines: Sequence[str]) -> Iterator[tuple[list[str], list[int]]]:
    """Return the arguments that hand lines to an output of ffmpeg, and the descriptors to pass."""
    if not lines:
        yield [], []
        return
    descriptor = os.memfd_create("relayd-srt")
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
        yield ["-fpre", f"/proc/self/fd/{descriptor}"], [descriptor]
    finally:
        os.close(descriptor)


class _Program:
    """A running ffmpeg with a pipe to and one from it, and what it complained of."""

    def __init__(
        self,
        arguments: list[str],
        url: str,
        name: str,
        missing: type[OutputError | SourceUnusable],
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it; raises `missing` where there is no such program, or none can be started."""
        self._url, self._name = url, name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end
        program = shutil.which("ffmpeg")
        if program is None:
            self._stderr.close()
            raise missing(
                f"{name}: SRT needs the program ffmpeg, which is not installed",
                hint="sudo apt install ffmpeg",
            )
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", *arguments]
        try:
            self._process = Child.start_program(command, stderr=self._stderr, pass_fds=pass_fds)
        except (OSError, ValueError) as fault:  # ValueError: a URL with a NUL
            self._stderr.close()
            why = redact(str(fault))
            raise missing(f"{name}: the program ffmpeg cannot be started: {why}") from None
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def has_output(self, within: float = 0.0) -> bool:
        """Whether there is something to read, be it the end."""
        return bool(wait_readable((self.stdout.fileno(),), within))

    def explanation(self) -> str:
        """Say why it ended, in its own words: its SRT part's where that spoke, else the last."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _MOST_READ))
        text = self._stderr.read(_MOST_READ).decode("utf-8", "replace").strip()
        if _BAD_SECRET in text:
            return _BAD_SECRET
        lines = text.replace(self._url, self._name).splitlines() or [""]
        srt_lines = [line for line in lines if line.startswith("[srt @ ")]
        words = _PART_PREFIX.sub("", (srt_lines or lines)[-1]).removeprefix(f"{self._name}: ")
        return excerpt(words, _LONGEST_EXPLANATION) or "the connection was closed"

    def end(self, within: float) -> None:
        """Close its input and wait; by force if it has not ended after `within` seconds."""
        self.stdin.close()
        self._process.end(within)
        self.stdout.close()
        self._stderr.close()


class SrtPipe:
    """A file-like object whose bytes, MPEG-TS, go to an srt:// URL."""

    def __init__(self, url: str, name: str) -> None:
        """Start the program; `name` stands for the URL in errors, which are OutputError."""
        self.name = name
        self._connected = False
        plain, secret = _split_secrets(url)
        with _preset(secret) as (preset, descriptors):
            # fmt: off
            arguments = [
                "-fflags", "nobuffer", "-analyzeduration", "300000", "-fpsprobesize", "0",
                "-progress", "pipe:1", "-f", "mpegts", "-i", "pipe:0",
                "-c", "copy", "-flush_packets", "1", "-muxdelay", "0", *preset,
                "-f", "mpegts", plain,
            ]
            # fmt: on
            self._program = _Program(arguments, plain, name, OutputError, descriptors)

    @property
    def connected(self) -> bool:
        """Whether the peer was reached; the program tells its progress from then on."""
        while self._program.has_output():
            if not os.read(self._program.stdout.fileno(), _PROGRESS_BYTES):
                break
            self._connected = True
        return self._connected

    def write(self, data: bytes) -> int:
        """Pass bytes on; OutputError with the program's words when it has ended."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._program.stdin.fileno(), rest) :]
        except BrokenPipeError as fault:
            raise OutputError(f"{self.name}: {self._program.explanation()}") from fault
        return len(data)

    def close(self) -> None:
        """End the program, by force if it does not end by itself."""
        self._program.end(_FINISH_LIMIT)


class SrtReader:
    """A file-like object that gives what comes from an srt:// URL, byte by byte as it was sent.

    It raises nothing while it is read, for FFmpeg would hide that; a failure looks like the
    end, and `fault` tells it. The program is killed when the thread ends that made this, however
    that ends.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        open_timeout: float,
        read_timeout: float,
        cancelled: Event,
    ) -> None:
        """Start the program; `name` stands for the URL in errors.

        The first bytes are waited for `open_timeout` seconds, all others `read_timeout`,
        and none once `cancelled` is set.
        Raises SourceUnusable when the program is not there or cannot be started.
        """
        self.name = name
        self._timeout, self._read_timeout = open_timeout, read_timeout
        self._cancelled = cancelled
        self._received = False
        self._fault: SourceError | None = None
        # The demuxer "data" looks into nothing, so nothing is held back, changed or refused.
        # fmt: off
        arguments = [
            "-f", "data", "-raw_packet_size", "65536", "-i", url,
            "-map", "0", "-c", "copy", "-flush_packets", "1", "-f", "data", "pipe:1",
        ]
        # fmt: on
        self._program = _Program(arguments, url, self.name, SourceUnusable)

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes as soon as there are some; none at the end."""
        if self._fault is not None or not self._wait():
            return b""
        data = os.read(self._program.stdout.fileno(), size)
        if data:
            self._received, self._timeout = True, self._read_timeout
        else:
            self._fail(self._program.explanation())
        return data

    def _wait(self) -> bool:
        """Wait for something to read; False when there was nothing in time."""
        deadline = time.monotonic() + self._timeout
        while not self._program.has_output(within=_POLL_INTERVAL):
            if self._cancelled.is_set():
                self._fail("nobody waits for it any more")
                return False
            if time.monotonic() >= deadline:
                self._fail(f"nothing came for {self._timeout:g} s")
                return False
        return True

    def _fail(self, words: str) -> None:
        kind = SourceLost if self._received else SourceUnreachable
        self._fault = kind(f"{self.name}: {words}")

    @property
    def fault(self) -> SourceError | None:
        """Why no more bytes come: SourceUnreachable, or SourceLost once some had come."""
        return self._fault

    def close(self) -> None:
        """Kill the program; a second call does nothing."""
        self._program.end(within=0.0)
