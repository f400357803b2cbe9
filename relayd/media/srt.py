"""SRT through the system's ffmpeg program, because the FFmpeg inside PyAV's wheels has no libsrt.

The program only carries ready MPEG-TS from a pipe to the peer; it encodes nothing.
"""

import os
import select
import subprocess
import tempfile
from contextlib import suppress
from typing import Final

from relayd.errors import OutputError
from relayd.logs import redact

_FINISH_LIMIT: Final = 2.0
"""s that the program has to send what is left, at close."""
_PROGRESS_BYTES: Final = 4096
_MOST_WORDS: Final = 200
"""Characters of the program's own explanation that are passed on."""


class SrtPipe:
    """A file-like object whose bytes go to an srt:// URL.

    The URL is an argument of the program, so users of the same machine can read a passphrase in it.
    """

    def __init__(self, url: str, name: str) -> None:
        """Start the program; `name` stands for the URL in errors, which are OutputError."""
        self.name = name
        self._url = url
        self._connected = False
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        # fmt: off
        command = [
            "ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error",
            "-fflags", "nobuffer", "-analyzeduration", "300000", "-fpsprobesize", "0",
            "-progress", "pipe:1", "-f", "mpegts", "-i", "pipe:0",
            "-c", "copy", "-flush_packets", "1", "-muxdelay", "0", "-f", "mpegts", url,
        ]
        # fmt: on
        try:
            self._program = subprocess.Popen(  # noqa: S603 - no shell, fixed program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words
            )
        except FileNotFoundError as fault:
            self._words.close()
            raise OutputError(
                f"{name}: SRT needs the program ffmpeg, which is not installed",
                mend="sudo apt install ffmpeg",
            ) from fault

    @property
    def connected(self) -> bool:
        """Whether the peer was reached; the program tells its progress from then on."""
        assert self._program.stdout
        while select.select([self._program.stdout], [], [], 0)[0]:
            if not os.read(self._program.stdout.fileno(), _PROGRESS_BYTES):
                break
            self._connected = True
        return self._connected

    def write(self, data: bytes) -> int:
        """Pass bytes on; OutputError with the program's words when it has ended."""
        assert self._program.stdin
        try:
            self._program.stdin.write(data)
            self._program.stdin.flush()
        except BrokenPipeError as fault:
            raise OutputError(f"{self.name}: {self._explanation()}") from fault
        return len(data)

    def close(self) -> None:
        """End the program, by force if it does not end by itself."""
        assert self._program.stdin
        with suppress(BrokenPipeError):
            self._program.stdin.close()
        try:
            self._program.wait(_FINISH_LIMIT)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        assert self._program.stdout
        self._program.stdout.close()
        self._words.close()

    def _explanation(self) -> str:
        self._words.seek(0)
        text = self._words.read().decode("utf-8", "replace").replace(self._url, self.name)
        last = text.strip().rpartition("\n")[2][:_MOST_WORDS]
        return redact(last) or "the connection was closed"
