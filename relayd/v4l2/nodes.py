"""A device's node: which device it is, its other names and sisters, and relayd's own use of it."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from relayd.process.open_files import entries, identity
from relayd.v4l2.calls import Capability, System, query_capability, stop_streaming

_LINK_FOLDERS: Final = ("v4l/by-id", "v4l/by-path")
"""Where udev names cameras by what they are and by where they are plugged in; best first."""


def device_number(path: str) -> int | None:
    """Return the number of the device that a node stands for; None when the path is no node.

    Links are followed. Raises OSError when there is no such path.
    """
    found = Path(path).stat()
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else None


def lasting_names(dev_root: Path = Path("/dev")) -> dict[str, str]:
    """Return udev's lasting name of each node, by-id before by-path, by the node's path."""
    names: dict[str, str] = {}
    for folder in _LINK_FOLDERS:
        for link in entries(dev_root / folder):
            with suppress(OSError):
                names.setdefault(str(link.resolve(strict=True)), str(link))
    return names


def sister_nodes(
    path: str, sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")
) -> list[str]:
    """Return the other nodes of the same piece of hardware, in the order of their numbers.

    A webcam has one for its pictures and one for metadata.
    """
    folder = sys_root / "class/video4linux"
    name = Path(path).resolve().name
    hardware = _hardware(folder / name)
    sisters = [
        entry.name
        for entry in entries(folder)
        if hardware and entry.name != name and _hardware(entry) == hardware
    ]
    sisters.sort(key=lambda sister: (len(sister), sister))
    return [str(dev_root / sister) for sister in sisters]


def capability_of(system: System, path: str) -> Capability:
    """Return what a node can do; raises OSError when it cannot be opened or is no video device."""
    fd = system.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return query_capability(system, fd)
    finally:
        system.close(fd)


def is_locked_here(device: int, proc_root: Path = Path("/proc")) -> bool:
    """Whether this process itself holds a lock on a device, as it does on a camera it writes to."""
    details = proc_root / "self/fdinfo"
    for fd in _own_descriptors(device, proc_root):
        with suppress(OSError):  # closed a moment ago
            if "\nlock:" in (details / str(fd)).read_text("ascii", "replace"):
                return True
    return False


def release(device: int, system: System, proc_root: Path = Path("/proc")) -> None:
    """End the streaming of this process from a device: calls that wait for a picture return.

    FFmpeg waits for a camera's next picture without any limit, and keeps it busy meanwhile.
    """
    for fd in _own_descriptors(device, proc_root):
        with suppress(OSError):  # closed a moment ago, or it does not stream
            stop_streaming(system, fd)


def _own_descriptors(device: int, proc_root: Path) -> Iterator[int]:
    for entry in entries(proc_root / "self/fd"):
        with suppress(OSError):  # closed a moment ago
            if identity(entry.stat()) == (0, device):
                yield int(entry.name)


def _hardware(entry: Path) -> str:
    try:
        return str((entry / "device").resolve(strict=True))
    except OSError:
        return ""
