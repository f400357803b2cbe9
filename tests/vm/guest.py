"""A virtual machine with a real v4l2loopback, as the tests use it.

qemu emulates the processor (TCG), so it runs anywhere and is 10 to 30 times slower than the
host. The guest's root is the host's own, read-only under a layer that vanishes with it.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from signal import SIGKILL, SIGTERM
from typing import Any, Final, Self

from tests.vm import cache
from tests.vm.cache import CannotBoot

Note = Callable[[str, object], None]
"""Puts a measured figure into the report, by a name."""
Reload = Callable[[str], None]
"""Loads v4l2loopback with other parameters."""
HERE: Final = Path(__file__).parent
MODULE_OPTIONS: Final = "exclusive_caps=1 card_label=relayd video_nr=0"
HOST: Final = "10.0.2.2"
"""The host, as the guest's network shows it: also what listens on 127.0.0.1 there."""
WHOLE: Final = os.environ.get("RELAYD_VM_WHOLE") == "1"
"""Whether all is run: on each version, not on the most telling one alone; and what is seen in the
container as well."""
BOOT_LIMIT: Final = 120.0
"""s; 3 s is usual, 11 s with systemd, and three times as much on a busy machine."""
PATIENCE: Final = 120.0
"""s that a program in the guest may take, unless told else."""
_PROCESSOR: Final = "max,erms=off,fsrm=off,la57=off,smap=off,smep=off,pku=off"
"""All that qemu emulates, but for what is dear: `rep movsb`, which it does byte by byte and glibc
and the kernel would copy pictures with (six times as slow), page tables of five levels, and guards
of memory."""
_KERNEL_WORDS: Final = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check"
    " random.trust_cpu=on audit=0"
)
_SYSTEMD_WORDS: Final = (
    " vm.systemd=1 systemd.unit=vm.target systemd.mask=timers.target systemd.mask=getty.target"
    " systemd.mask=systemd-timesyncd.service systemd.show_status=0"
)
_START: Final = """\
. /run/vm/env
{as_udev_does}
exec {python} -I -S /run/vm/agent.py
"""
_AS_UDEV_DOES: Final = """\
to_group_video='chgrp video /dev/video* && chmod 660 /dev/video*'
sh -c "$to_group_video" 2>/dev/null
load='modprobe --ignore-install v4l2loopback $CMDLINE_OPTS'
echo "install v4l2loopback $load && $to_group_video" >/etc/modprobe.d/vm.conf
"""
"""A machine without systemd has no udev."""


def stopwatch(note: Note, about: str) -> Callable[[str, float], float]:
    """Return what puts into the report the time since a moment, in s, and gives it."""

    def seconds(what: str, began: float) -> float:
        took = time.monotonic() - began
        note(f"{about}: {what}", f"{took:.1f} s")
        return took

    return seconds


class Failed(AssertionError):
    """A program in the guest did not do what it should; holds what it said."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What machine to boot."""

    series: str = "0.12"
    """v4l2loopback: 0.12, 0.13 or 0.15."""
    options: str | None = MODULE_OPTIONS
    """Its parameters; None leaves it unloaded (`modprobe v4l2loopback …` works inside)."""
    systemd: bool = False
    """The root's own systemd as PID 1, else the agent alone."""
    memory: int = 2048
    """MiB."""
    processors: int = min(os.cpu_count() or 1, 2)
    """Where others need the host's processors too, two of them take three times as long."""
    root: Path = Path("/")
    """The folder that is the guest's root."""
    shared: Path | None = None
    """A folder that the guest may write to, at the same path."""
    limit: float = 3600.0
    """s after which the machine is killed; a whole run takes a fifth of that."""


@dataclass
class Process:
    """A program that runs in the guest."""

    guest: "Guest"
    number: int
    command: str
    pid: int = 0
    output: bytes = b""
    status: int | None = None
    """The exit status, negative for a signal; None while it runs."""
    on_output: Callable[[bytes], None] | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def text(self) -> str:
        """What it said so far, on stdout and stderr."""
        return self.output.decode("utf-8", "replace")

    def hear(self, answer: dict[str, Any]) -> None:
        """Take what the agent tells of it."""
        with self.changed:
            self.pid = answer.get("pid", self.pid)
            self.status = answer.get("status", self.status)
            if "out" in answer:
                data = base64.b64decode(answer["out"])
                self.output += data
                if self.on_output:
                    self.on_output(data)
            self.changed.notify_all()

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for its end; returns the status."""
        self._wait(lambda: self.status is not None, within, "did not end")
        assert self.status is not None
        return self.status

    def wait_for(self, pattern: str, within: float = PATIENCE, after: int = 0) -> re.Match[str]:
        """Wait until it says something that matches, from the character `after` on."""
        found: list[re.Match[str]] = []

        def said() -> bool:
            found.extend(re.compile(pattern, re.MULTILINE).finditer(self.text, after))
            return bool(found) or self.status is not None

        self._wait(said, within, f"did not say {pattern!r}")
        if not found:
            raise Failed(f"{self.command} ended ({self.status}) before {pattern!r}: {self.text}")
        return found[0]

    def send(self, text: str) -> None:
        """Write a line to its stdin; only if it was started with `stdin=True`."""
        data = base64.b64encode(text.encode() + b"\n").decode()
        self.guest.ask(op="input", id=self.number, data=data)

    def signal(self, number: int = SIGTERM) -> None:
        """Send its whole process group a signal."""
        self.guest.ask(op="signal", id=self.number, number=int(number))

    def stop(self, number: int = SIGTERM, within: float = PATIENCE) -> int:
        """Signal it and wait for its end; returns the status."""
        if self.status is None:
            self.signal(number)
        return self.wait(within)

    def _wait(self, done: Callable[[], bool], within: float, complaint: str) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: done() or self.guest.gone, within) or (
                self.guest.gone and not done()
            ):
                why = self.guest.gone or f"within {within:g} s"
                raise Failed(f"{self.command}: {complaint} ({why}); said:\n{self.text[-6000:]}")


class Guest:
    """One running virtual machine; use it in a `with`."""

    def __init__(self, machine: Machine) -> None:
        """Boot it, and wait until it takes commands; CannotBoot where that can't be."""
        began = time.monotonic()
        self.machine = machine
        image = cache.prepare(machine.series)
        if machine.systemd and machine.root == Path("/"):
            cache.install(("systemd", "dbus"))
        self.loopback = image.loopback
        self.gone = ""
        """Why the machine is no more."""
        self._processes: dict[int, Process] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        # The guest sees this folder as /run/vm, and may write to it.
        self.folder = Path(tempfile.mkdtemp(prefix="relayd-vm-"))
        prepared = time.monotonic()
        self._write_start_files()
        try:
            self._boot(image)
        except BaseException:
            self.close()
            raise
        self.prepared_in, self.booted_in = prepared - began, time.monotonic() - prepared

    def _write_start_files(self) -> None:
        shutil.copy2(HERE / "agent.py", self.folder)
        python = Path(sys.executable).resolve()
        as_udev_does = "" if self.machine.systemd else _AS_UDEV_DOES
        (self.folder / "start").write_text(
            _START.format(as_udev_does=as_udev_does, python=quote(str(python)))
        )
        names = ("PATH", "HOME", "LANG", "PYTHONPATH")
        lines = [f"export {name}={quote(os.environ[name])}\n" for name in names if name in os.environ]  # fmt: skip  # noqa: E501
        lines.append(f"cd {quote(str(Path.cwd()))} 2>/dev/null || cd /\n")
        (self.folder / "env").write_text("".join(lines))
        if self.machine.options is not None:
            (self.folder / "modopts").write_text(self.machine.options + "\n")

    def _boot(self, image: cache.Image) -> None:
        path = self.folder / "agent.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            # Whatever becomes of this process, the machine ends: with it, or at its limit.
            keeper = ["setpriv", "--pdeathsig", "TERM", "timeout", "-k", "5", f"{self.machine.limit:g}"]  # fmt: skip  # noqa: E501
            with (self.folder / "qemu.err").open("wb") as errors:
                self._qemu = subprocess.Popen(
                    [*keeper, *self._command(image, path)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            self._line = self._accept(listener)
        self._reader = threading.Thread(target=self._read, name="vm-reader", daemon=True)
        self._reader.start()
        if not self._ready.wait(BOOT_LIMIT):
            raise CannotBoot(f"no answer within {BOOT_LIMIT:g} s; console:\n{self.console()}")
        if self.gone:
            raise CannotBoot(f"{self.gone}; console:\n{self.console()}")

    def _accept(self, listener: socket.socket) -> socket.socket:
        """Return qemu's end of the line to the agent; CannotBoot when qemu does not start."""
        deadline = time.monotonic() + BOOT_LIMIT
        listener.settimeout(0.2)
        while self._qemu.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                line = listener.accept()[0]
                line.settimeout(None)
                return line
        raise CannotBoot(f"qemu: {(self.folder / 'qemu.err').read_text()[-800:]}")

    def _command(self, image: cache.Image, agent: Path) -> list[str]:
        machine = self.machine
        words = _KERNEL_WORDS + (_SYSTEMD_WORDS if machine.systemd else "")
        if machine.shared:
            words += f" vm.rw={machine.shared}"
        command = [
            *("qemu-system-x86_64", "-M", "q35,i8042=off,smbus=off,sata=off"),
            *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", _PROCESSOR),
            *("-smp", str(machine.processors), "-m", str(machine.memory)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-monitor", "none", "-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", words, "-serial", f"file:{self.folder}/console"),
            *("-device", "virtio-rng-pci"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={agent}"),
            *("-device", "virtserialport,chardev=agent,name=agent"),
            *_shared_folder("root", machine.root, "readonly=on,multidevs=remap"),
            *_shared_folder("ctl", self.folder, "multidevs=remap"),
        ]
        if machine.shared:
            command += _shared_folder("rw", machine.shared, "multidevs=remap")
        return command

    def _read(self) -> None:
        with self._line.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if "ready" in answer:
                    self._ready.set()
                else:
                    self._processes[answer["id"]].hear(answer)
        self.gone = f"the machine ended: {self.console()[-2000:]}"
        self._ready.set()
        for process in self._processes.values():
            process.hear({})

    def ask(self, **words: Any) -> None:
        """Tell the agent something."""
        if self.gone:
            raise Failed(self.gone)
        with self._lock:
            self._line.sendall(json.dumps(words).encode() + b"\n")

    def start(
        self,
        command: str,
        *,
        stdin: bool = False,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Process:
        """Start a bash command line, as root, in this process's working directory."""
        process = Process(self, len(self._processes), command, on_output=on_output)
        self._processes[process.number] = process
        self.ask(op="start", id=process.number, command=command, stdin=stdin)
        return process

    def run(self, command: str, within: float = PATIENCE, status: int | None = 0) -> str:
        """Run a bash command line; returns what it said; Failed unless it ended with `status`."""
        process = self.start(command)
        process.wait(within)
        if status is not None and process.status != status:
            raise Failed(f"{command}: status {process.status}, said:\n{process.text[-6000:]}")
        return process.text

    def stop_programs(self, but: Process | None = None) -> None:
        """Kill what still runs of what was started, except one."""
        for process in self._processes.values():
            if process.status is None and process is not but and not self.gone:
                process.stop(SIGKILL)

    def write(self, path: str, text: str) -> None:
        """Make a file in the guest."""
        name = f"file-{len(self._processes)}"
        (self.folder / name).write_text(text)
        self.run(f"mkdir -p $(dirname {quote(path)}) && cp /run/vm/{name} {quote(path)}")

    def console(self) -> str:
        """What the kernel said: oopses, and with systemd its errors."""
        try:
            return (self.folder / "console").read_text("utf-8", "replace")
        except OSError:
            return ""

    def close(self) -> None:
        """End the machine; nothing in it is kept."""
        if qemu := getattr(self, "_qemu", None):
            qemu.terminate()
            qemu.wait()
        if line := getattr(self, "_line", None):
            line.shutdown(socket.SHUT_RDWR)
            self._reader.join()
            line.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _shared_folder(tag: str, path: Path, options: str) -> list[str]:
    local = f"local,id={tag},path={path},security_model=none,{options}"
    return ["-fsdev", local, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
