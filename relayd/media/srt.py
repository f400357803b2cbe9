"""SRT through the system's ffmpeg program, because the FFmpeg inside PyAV's wheels has no libsrt.

The program only transfers bytes between a pipe and the peer; it encodes and decodes nothing. The
URL is an argument of the program, which every user of the machine can read. So an output's
passphrase and streamid are passed as a preset file, on a descriptor. FFmpeg accepts none for an
input: a source's could be hidden in a concat script (the only way in FFmpeg 5), but that demuxes
and remuxes the stream, at the cost of 80 ms. So they are readable there, and `shows_secret`
reports it.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Final, SupportsFloat
from urllib.parse import unquote

from relayd.errors import OutputError, SourceError, SourceLost, SourceUnreachable, SourceUnusable
from relayd.process.ffmpeg import FfmpegProgram

_FINISH_LIMIT: Final = 2.0
"""s that the program has to send the rest at close."""
_POLL_INTERVAL: Final = 0.1
"""s between checks whether to go on waiting for a silent peer."""
_PROGRESS_BYTES: Final = 4096


_SECRET_OPTIONS: Final = {"passphrase": 79, "streamid": 512, "srt_streamid": 512}
"""FFmpeg's options that hold a secret, and the bytes that SRT allows each."""


def is_srt(url: str) -> bool:
    """Whether this module handles a URL."""
    return url.lower().startswith("srt://")


def shows_secret(url: str) -> bool:
    """Whether reading from this URL shows its secret to every user of this machine."""
    names = {pair.partition("=")[0] for pair in url.partition("?")[2].split("&")}
    return is_srt(url) and not names.isdisjoint(_SECRET_OPTIONS)


def _split_secrets(url: str, shown: str) -> tuple[str, list[str]]:
    """Separate a URL from its secret options, each as a line of a preset file, URL-decoded.

    Raises OutputError for one that no preset file can hold; `shown` is the URL's name in it.
    """
    before, mark, query = url.partition("?")
    plain, secret = [], []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        value = value.replace("+", " ")
        if not value or name not in _SECRET_OPTIONS:
            plain.append(pair)
            continue
        value = unquote(value) if name != "passphrase" else value
        if len(value.encode()) > _SECRET_OPTIONS[name] or not value.isprintable():
            longest = _SECRET_OPTIONS[name]
            raise OutputError(
                f"{shown}: {name}: must be printable and have at most {longest} bytes"
            )
        secret.append(f"{name}={value}")
    rest = "&".join(plain)
    return f"{before}{mark if rest else ''}{rest}", secret


@contextmanager
def _preset(lines: Sequence[str], shown: str) -> Iterator[tuple[list[str], list[int]]]:
    """Yield the arguments that pass lines to an output of ffmpeg, and the descriptors to pass."""
    if not lines:
        yield [], []
        return
    try:
        descriptor = os.memfd_create("relayd-srt")
    except OSError as fault:
        raise OutputError(
            f"{shown}: no memory file for the SRT options: {fault.strerror}"
        ) from fault
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
        yield ["-fpre", f"/proc/self/fd/{descriptor}"], [descriptor]
    finally:
        os.close(descriptor)


class SrtPipe:
    """A file-like object whose bytes, MPEG-TS, go to an srt:// URL."""

    def __init__(self, url: str, name: str) -> None:
        """Start the program; `name` replaces the URL in errors, which are OutputError."""
        self.name = name
        self._connected = False
        plain, secret = _split_secrets(url, name)
        with _preset(secret, name) as (preset, descriptors):
            # fmt: off
            arguments = [
                "-fflags", "nobuffer", "-analyzeduration", "300000", "-fpsprobesize", "0",
                "-progress", "pipe:1", "-f", "mpegts", "-i", "pipe:0",
                "-c", "copy", "-flush_packets", "1", "-muxdelay", "0", *preset,
                "-f", "mpegts", plain,
            ]
            # fmt: on
            self._program = FfmpegProgram(
                arguments, plain, name, OutputError, part="srt", pass_fds=descriptors
            )

    @property
    def connected(self) -> bool:
        """Whether the peer was reached; from then on the program reports its progress."""
        while self._program.has_output():
            if not os.read(self._program.stdout.fileno(), _PROGRESS_BYTES):
                break
            self._connected = True
        return self._connected

    def write(self, data: bytes) -> int:
        """Pass bytes on; raises OutputError with the program's message when it has ended."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._program.stdin.fileno(), rest) :]
        except BrokenPipeError as fault:
            raise OutputError(f"{self.name}: {self._program.explanation()}") from fault
        return len(data)

    def close(self) -> None:
        """End the program; kill it if it does not end by itself."""
        self._program.end(_FINISH_LIMIT)


class SrtReader:
    """A file-like object that returns the bytes from an srt:// URL, unchanged.

    It raises nothing while it is read, because FFmpeg would hide that; a failure looks like the
    end, and is in `fault`. The program is killed when the thread that created this object ends,
    for whatever reason.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        open_timeout: float,
        read_timeout: SupportsFloat,
        cancelled: Event,
    ) -> None:
        """Start the program; `name` replaces the URL in errors.

        Waits up to `open_timeout` seconds for the first bytes and `read_timeout`, asked each
        time, for all others, but not once `cancelled` is set.
        Raises SourceUnusable when the program is missing or cannot be started.
        """
        self.name = name
        self._timeout: SupportsFloat = open_timeout
        self._read_timeout = read_timeout
        self._cancelled = cancelled
        self._received = False
        self._fault: SourceError | None = None
        # The demuxer "data" does not parse, so nothing is held back, changed or rejected.
        # fmt: off
        arguments = [
            "-f", "data", "-raw_packet_size", "65536", "-i", url,
            "-map", "0", "-c", "copy", "-flush_packets", "1", "-f", "data", "pipe:1",
        ]
        # fmt: on
        self._program = FfmpegProgram(arguments, url, self.name, SourceUnusable, part="srt")

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes as soon as there are some; none at the end."""
        if self._fault is not None or not self._wait():
            return b""
        data = os.read(self._program.stdout.fileno(), size)
        if data:
            self._received, self._timeout = True, self._read_timeout
        else:
            self._fail(self._program.explanation())
        return data

    def _wait(self) -> bool:
        """Wait for something to read; False if there is nothing in time."""
        limit = float(self._timeout)
        deadline = time.monotonic() + limit
        while not self._program.has_output(within=_POLL_INTERVAL):
            if self._cancelled.is_set():
                self._fail("it is no longer needed")
                return False
            if time.monotonic() >= deadline:
                self._fail(f"no data for {limit:g} s")
                return False
        return True

    def _fail(self, reason: str) -> None:
        kind = SourceLost if self._received else SourceUnreachable
        self._fault = kind(f"{self.name}: {reason}")

    @property
    def fault(self) -> SourceError | None:
        """Why there are no more bytes: SourceUnreachable, or SourceLost after the first bytes."""
        return self._fault

    def close(self) -> None:
        """Kill the program; a second call does nothing."""
        self._program.end(within=0.0)
