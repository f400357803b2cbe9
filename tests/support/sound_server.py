"""Real sound servers without a card, each in a runtime folder and on a D-Bus of its own."""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["pulseaudio", "pipewire"]
SERVER_COMMANDS: dict[Kind, str] = {
    "pulseaudio": "exec pulseaudio --daemonize=no --exit-idle-time=-1"
    " -n -L module-native-protocol-unix",
    "pipewire": 'at=$XDG_RUNTIME_DIR/pipewire-0; rm -f "$at"*; pipewire &'
    ' until [ -S "$at" ]; do sleep 0.02; done; wireplumber & pipewire-pulse & wait',
}
"""What starts each; for a D-Bus of its own. WirePlumber ends at once where PipeWire is not there
yet, and then nobody is ever connected to a source; a killed PipeWire leaves its socket behind."""
STARTS_WITHIN = 15.0


def is_installed(kind: Kind) -> bool:
    """Whether the server and its tools are there."""
    programs = {"pulseaudio": ("pulseaudio",), "pipewire": ("pipewire-pulse", "wireplumber")}
    return all(map(shutil.which, (*programs[kind], "pactl", "parec", "dbus-run-session")))


def unpacked(root: Path) -> dict[str, str]:
    """Return the environment that makes PipeWire run from Debian packages unpacked in `root`."""
    library = root / "usr/lib/x86_64-linux-gnu"
    return {
        "PATH": f"{root}/usr/bin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(library),
        "SPA_PLUGIN_DIR": str(library / "spa-0.2"),
        "PIPEWIRE_MODULE_DIR": str(library / "pipewire-0.3"),
        "PIPEWIRE_CONFIG_DIR": str(root / "usr/share/pipewire"),
        "WIREPLUMBER_MODULE_DIR": str(library / "wireplumber-0.5"),
        "WIREPLUMBER_CONFIG_DIR": str(root / "usr/share/wireplumber"),
        "WIREPLUMBER_DATA_DIR": str(root / "usr/share/wireplumber"),
    }


class SoundServer:
    """One server; `environment` leads programs to it."""

    def __init__(self, kind: Kind, runtime: Path, more: Mapping[str, str] | None = None) -> None:
        """Prepare a server whose runtime folder is `runtime`; `more` adds to its environment."""
        self.kind, self._runtime = kind, runtime
        runtime.mkdir(mode=0o700, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)}
        self.environment = {**kept, **own, **(more or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            ["dbus-run-session", "--", "sh", "-c", SERVER_COMMANDS[self.kind]],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + STARTS_WITHIN
        while self.ask("info")[0]:
            assert time.monotonic() < deadline, f"{self.kind} does not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it with all that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # A container's first process may not reap what was killed: it would count as running.
        (self._runtime / "pulse" / "pid").unlink(missing_ok=True)

    def ask(self, *command: str) -> tuple[int, str]:
        """Return pactl's status and what it printed."""
        done = subprocess.run(
            ["pactl", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.returncode, done.stdout

    def _recorder(self, source: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [
                *("parec", f"--device={source}", "--format=s16le", "--rate=48000"),
                *("--channels=1", "--latency-msec=10", "--raw"),
            ],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _giving_sound(self, source: str) -> "subprocess.Popen[bytes]":
        """Return a recorder that gets sound.

        A source is listed before it can be read: who asks in between is sent away.
        """
        deadline = time.monotonic() + STARTS_WITHIN
        while (left := deadline - time.monotonic()) > 0:
            recorder = self._recorder(source)
            if _gives_sound(recorder, left):
                return recorder
            _end(recorder)
        raise AssertionError(f"{self.kind}: nobody gets sound from {source}")

    @contextmanager
    def recording(self, source: str) -> Iterator[Callable[[float], NDArray[np.int16]]]:
        """Record from a source with another program; the callable returns the next seconds."""
        deadline = time.monotonic() + STARTS_WITHIN
        while source not in self.ask("list", "short", "sources")[1]:  # PipeWire makes it later
            assert time.monotonic() < deadline, f"{self.kind} has no source {source}"
            time.sleep(0.05)
        recorder = self._giving_sound(source)
        assert recorder.stdout is not None
        reader = recorder.stdout

        def take(seconds: float) -> NDArray[np.int16]:
            return np.frombuffer(reader.read(round(seconds * 48000) * 2), np.int16)

        try:
            yield take
        finally:
            _end(recorder)


def _end(recorder: "subprocess.Popen[bytes]") -> None:
    recorder.kill()
    recorder.wait()
    assert recorder.stdout is not None
    recorder.stdout.close()


def _gives_sound(recorder: "subprocess.Popen[bytes]", within: float) -> bool:
    """Whether it records something in that many s, and goes on."""
    assert recorder.stdout is not None
    is_readable = select.select([recorder.stdout], [], [], within)[0]
    time.sleep(0.05)  # it may be ending
    return bool(is_readable) and recorder.poll() is None
