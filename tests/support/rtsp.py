"""A live RTSP camera for the tests: GStreamer's server as a process of its own."""

import signal
import subprocess
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
NEEDED = (
    "apt-get install --no-install-recommends gir1.2-gst-rtsp-server-1.0 python3-gi"
    " gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
    " gstreamer1.0-plugins-ugly"
)


def require_server() -> None:
    """Skip the test, and say what to install, where GStreamer's RTSP server is missing."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", probe], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"no RTSP server to test against: {NEEDED}")


class RtspCamera:
    """GStreamer's RTSP server as a process: may be killed, frozen and started again."""

    def __init__(self, login: str = "", pictures: Path | None = None, transport: str = "") -> None:
        """Serve a moving test pattern, or a folder's 00000.jpg, 00001.jpg, … again and again.

        `login` (name:password) locks it; with the transport `udp` it speaks no other.
        Skips the test where there is no such server.
        """
        require_server()
        self._login, self._pictures, self._transport = login, pictures, transport
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, on the same port as before; returns when it listens."""
        script = Path(__file__).with_name("rtsp_server.py")
        arguments = [str(self.port), self._login, str(self._pictures or ""), self._transport]
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(script), *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, login: str = "", path: str = "live") -> str:
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/{path}"

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
