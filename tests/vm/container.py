"""A real systemd at the machine's own speed: PID 1 of a container, an overlay of this system.

Nothing that is done in it stays. The network is this machine's own, so that an emulator which
runs beside it is found. Needs root, systemd and systemd-container.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote

import psutil

from tests.vm.cache import install

BOOT = 60.0  # s that systemd may take; 1 s on an idle machine
PATIENCE = 120.0  # s that a command may take
UP = "systemctl is-active basic.target"
KEY = "the-key-of-the-tests"
"""What the stand-in of the service takes."""
PACKAGES = ("systemd", "systemd-sysv", "systemd-container", "dbus", "polkitd")
NEEDED = ("systemd-nspawn", "nsenter", "dpkg-deb")
MASKED = ("timers.target", "getty.target", "systemd-timesyncd.service", "systemd-udevd.service")


def missing() -> str:
    """Why no container can be had here; empty where it can. Installs what apt has."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        install(PACKAGES)
    except (subprocess.CalledProcessError, OSError) as fault:
        return str(fault)
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(absent)}" if absent else ""


class Container:
    """A booted container."""

    def __init__(self, *packages: Path) -> None:
        """Boot it, with these .deb packages unpacked (not installed) in it."""
        self._folder = Path(tempfile.mkdtemp(prefix="relayd-container-"))
        _call("mount", "-t", "tmpfs", "-o", "mode=755,size=2G", "tmpfs", self._folder)
        self._console = (self._folder / "console").open("wb")
        try:
            self.root = self._mount(packages)
            self._nspawn = self._boot()
            self._init = self._find_init()
            self.wait_for("basic.target", lambda: self.start(UP).returncode == 0, BOOT)
        except BaseException as fault:
            fault.add_note((self._folder / "console").read_text()[-3000:])
            self.stop()
            raise

    def start(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command in it, whatever comes of it; stdout holds stderr as well."""
        return subprocess.run(
            [
                *("nsenter", "-t", str(self._init), "-m", "-u", "-i", "-p", "-C"),
                *("/bin/sh", "-c", f"cd /; {command}"),
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"},
            check=False,
        )

    def run(self, command: str, status: int | None = 0) -> str:
        """Return what a shell command says that must end with `status` (None: with any)."""
        done = self.start(command)
        assert status in (None, done.returncode), f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make a file in it."""
        self.run(
            f"mkdir -p {quote(str(Path(path).parent))}"
            f" && printf %s {quote(text)} >{quote(path)} && chmod {mode:o} {quote(path)}"
        )

    def written(self) -> set[str]:
        """Name every file that has been made or changed in it so far, and each new folder."""
        upper = self._folder / "upper"
        paths = {path.relative_to(upper): path for path in upper.rglob("*")}
        return {
            str(name)
            for name, path in paths.items()
            if not path.is_dir() or not (Path("/") / name).is_dir()
        }

    def wait_for(self, what: str, done: Callable[[], object], within: float) -> float:
        """Wait until `done()` holds; returns the seconds that it took."""
        start = time.monotonic()
        while not done():
            assert time.monotonic() - start < within, f"{what}: not within {within:g} s"
            time.sleep(0.05)
        return time.monotonic() - start

    def stop(self) -> None:
        """End it, with all that runs in it."""
        # A killed nspawn would leave its container running; the end of its init is its end.
        for process in (getattr(self, "_init", None), self._pid_of_nspawn()):
            if process:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        if hasattr(self, "_nspawn"):
            self._nspawn.wait(20)
        self._console.close()
        subprocess.run(
            ["umount", "-l", self._folder / "root"], stderr=subprocess.DEVNULL, check=False
        )
        _call("umount", "-l", self._folder)
        self._folder.rmdir()

    def _pid_of_nspawn(self) -> int | None:
        return self._nspawn.pid if hasattr(self, "_nspawn") else None

    def _mount(self, packages: tuple[Path, ...]) -> Path:
        root, upper, work = (self._folder / name for name in ("root", "upper", "work"))
        for folder in (root, upper, work):
            folder.mkdir()
        upper.chmod(0o755)
        for package in packages:
            _call("dpkg-deb", "-x", package, upper)
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        _call("mount", "-t", "overlay", "-o", layers, "overlay", root)
        (root / "etc/tmpfiles.d").mkdir(exist_ok=True)
        tmp_rule = root / "etc/tmpfiles.d/tmp.conf"  # the system's own would empty /tmp
        tmp_rule.unlink(missing_ok=True)
        tmp_rule.symlink_to("/dev/null")
        (root / "etc/machine-id").unlink(missing_ok=True)
        (root / "etc/machine-id").touch()
        return root

    def _boot(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--directory", self.root, "--boot"),
                *("--register=no", "--keep-unit", "--link-journal=no", "--console=pipe"),
                # cgroup v2 within, and bpf(): else DevicePolicy= is silently not enforced.
                "--system-call-filter=bpf",
                "systemd.unit=basic.target",
                *(f"systemd.mask={unit}" for unit in MASKED),
            ],
            env=os.environ
            | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_TMPFS_TMP": "0"},
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
        )

    def _find_init(self) -> int:
        found: list[int] = []

        def look() -> bool:
            assert self._nspawn.poll() is None, "systemd-nspawn ended at once"
            children = psutil.Process(self._nspawn.pid).children()
            found[:] = [child.pid for child in children if child.name() == "systemd"]
            return bool(found)

        self.wait_for("init", look, BOOT)
        return found[0]


def _call(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)
