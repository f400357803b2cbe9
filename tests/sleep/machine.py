"""A real dbus-daemon with a double of logind on it, each in its own process."""

import asyncio
import subprocess
from pathlib import Path

DOUBLE = Path(__file__).with_name("logind_double.py")
PYTHON = "/usr/bin/python3"
TIMEOUT = 20.0  # s for a line that comes within milliseconds
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


def missing() -> str:
    """What these tests lack here; empty if nothing."""
    try:
        subprocess.run(["dbus-daemon", "--version"], check=True, capture_output=True)
        subprocess.run(
            [PYTHON, "-c", "import dbus, gi.repository.GLib"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as fault:
        return f"needs dbus-daemon, python3-dbus and python3-gi (tests/setup.sh): {fault}"
    return ""


class Machine:
    """The bus, and logind on it; each can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._socket, self._config = folder / "bus", folder / "bus.conf"
        self._config.write_text(CONFIG.format(socket=self._socket))
        self.address = f"unix:path={self._socket}"
        self._bus: asyncio.subprocess.Process | None = None
        self._logind: asyncio.subprocess.Process | None = None

    async def start_bus(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._bus = await asyncio.create_subprocess_exec(
            "dbus-daemon",
            *(f"--config-file={self._config}", "--nofork", "--nopidfile", "--print-address=1"),
            stdout=subprocess.PIPE,
        )
        await self._line(self._bus)

    async def start_logind(self, *options: str) -> None:
        self._logind = await asyncio.create_subprocess_exec(
            *(PYTHON, str(DOUBLE), self.address, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        await self.expect("ready")

    def command(self, word: str) -> None:
        assert self._logind
        assert self._logind.stdin
        self._logind.stdin.write(f"{word}\n".encode())

    async def expect(self, expected: str) -> None:
        """Wait for logind's next line, which must be this one."""
        assert self._logind
        assert await self._line(self._logind) == expected

    async def stop_logind(self) -> None:
        await self._end(self._logind)
        self._logind = None

    async def stop_bus(self) -> None:
        await self._end(self._bus)
        self._bus = None

    async def stop(self) -> None:
        await self.stop_logind()
        await self.stop_bus()

    async def _line(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout
        async with asyncio.timeout(TIMEOUT):
            return (await process.stdout.readline()).decode().strip()

    async def _end(self, process: asyncio.subprocess.Process | None) -> None:
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.communicate()
