"""The system's ffmpeg program as a child, with a pipe to it and a pipe from it."""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Final

from relayd.errors import OutputError, SourceUnusable
from relayd.logs import excerpt, redact
from relayd.process.child import Child
from relayd.process.descriptors import wait_readable

_MOST_READ: Final = 16 * 1024
"""The last bytes of the program's stderr that are used."""
_LONGEST_EXPLANATION: Final = 200
"""Characters of the program's error message that are passed on."""
_PART_PREFIX: Final = re.compile(r"^\[[^]@]+ @ 0x[0-9a-f]+\] ")
"""FFmpeg's prefix of a line from one of its components."""
_BAD_SECRET: Final = "Incorrect passphrase"  # noqa: S105 - a message, not a secret
"""libsrt's reason (SRT_REJ_BADSECRET), which FFmpeg reports as an input/output error."""


class FfmpegProgram:
    """A running ffmpeg; killed when the thread that started it ends."""

    def __init__(
        self,
        arguments: Sequence[str],
        url: str,
        name: str,
        missing: type[OutputError | SourceUnusable],
        *,
        part: str,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it; raises `missing` if the program is missing or cannot be started.

        `url` is replaced by `name` in what it says; `part` is the component of FFmpeg that it is
        needed for, whose messages say most, such as `srt`.
        """
        self._url, self._name, self._part = url, name, part
        try:
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        except OSError as fault:
            raise missing(f"{name}: no temporary file: {fault.strerror}") from fault
        program = shutil.which("ffmpeg")
        if program is None:
            self._stderr.close()
            raise missing(
                f"{name}: {part.upper()} needs the program ffmpeg, which is not installed",
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

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def has_output(self, within: float = 0.0) -> bool:
        """Whether there is something to read, including the end."""
        return bool(wait_readable((self.stdout.fileno(),), within))

    def explanation(self) -> str:
        """Return its error message: that of its `part` if there is one, else the last."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _MOST_READ))
        text = self._stderr.read(_MOST_READ).decode("utf-8", "replace").strip()
        if _BAD_SECRET in text:
            return _BAD_SECRET
        lines = text.replace(self._url, self._name).splitlines() or [""]
        of_part = [line for line in lines if line.startswith(f"[{self._part} @ ")]
        message = _PART_PREFIX.sub("", (of_part or lines)[-1]).removeprefix(f"{self._name}: ")
        return excerpt(message, _LONGEST_EXPLANATION) or "the connection was closed"

    def end(self, within: float) -> None:
        """Close its input and wait; kill it if it has not ended after `within` seconds."""
        self.stdin.close()
        self._process.end(within)
        self.stdout.close()
        self._stderr.close()
