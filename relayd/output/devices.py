"""The video devices of this machine and the v4l2loopback module, as shown in /sys."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relayd.output import v4l2
from relayd.v4l2 import calls

BEFORE_0_13: Final = "0.12 or older"
"""`module_version` of modules that show none."""


@dataclass(frozen=True, slots=True)
class VideoDevice:
    """One /dev/videoN, as far as we may inspect it."""

    path: str
    label: str
    """The name under which programs list it."""
    driver: str
    is_loopback: bool
    can_output: bool
    can_capture: bool
    formats: tuple[str, ...]
    """FourCCs that it captures, best first; for a loopback the one that is set."""
    fps: float
    """As announced by the device; 0 when unknown."""
    readable: bool
    writable: bool
    problem: str
    """Why it could not be inspected; empty when it could."""


def list_devices(
    sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev"), system: calls.System | None = None
) -> list[VideoDevice]:
    """Return all video devices, in the order of their numbers."""
    system = system or calls.Linux()
    folder = sys_root / "class/video4linux"
    entries = [entry for entry in _entries(folder) if entry.name.startswith("video")]
    entries.sort(key=lambda entry: (len(entry.name), entry.name))
    return [_inspect(entry, dev_root / entry.name, system) for entry in entries]


def _inspect(entry: Path, node: Path, system: calls.System) -> VideoDevice:
    capability = calls.Capability("", _read(entry / "name"), 0)
    # Only v4l2loopback has this attribute, which needs no permission to see.
    is_loopback = (entry / "max_openers").exists()
    formats: tuple[str, ...] = ()
    fps, problem = 0.0, ""
    try:
        fd = system.open(str(node), os.O_RDONLY | os.O_NONBLOCK)
        try:
            capability = calls.query_capability(system, fd)
            is_loopback = capability.is_loopback
            side = calls.BufferType.CAPTURE if capability.can_capture else calls.BufferType.OUTPUT
            formats = _formats(system, fd, side, is_loopback=is_loopback)
            fps = _frame_rate(system, fd, side)
        finally:
            system.close(fd)
    except OSError as fault:
        problem = os.strerror(fault.errno) if fault.errno else str(fault)
    return VideoDevice(
        path=str(node),
        label=capability.card or _read(entry / "name"),
        driver=capability.driver or (calls.LOOPBACK_DRIVER if is_loopback else ""),
        is_loopback=is_loopback,
        can_output=capability.can_output,
        can_capture=capability.can_capture,
        formats=formats,
        fps=fps,
        readable=os.access(node, os.R_OK),
        writable=os.access(node, os.W_OK),
        problem=problem,
    )


def _formats(
    system: calls.System, fd: int, side: calls.BufferType, *, is_loopback: bool
) -> tuple[str, ...]:
    if is_loopback:  # while unset it would list every format it supports
        try:
            current = v4l2.get_format(system, fd, side)
        except OSError:
            return ()
        if not current.width:  # before 0.15: none has been set yet
            return ()
        return (f"{current.fourcc} {current.width}x{current.height}",)
    found: list[str] = []
    try:
        while len(found) < 64:  # noqa: PLR2004 - limit for a broken driver
            found.append(calls.describe_format(system, fd, side, len(found)))
    except OSError:  # EINVAL ends the list
        pass
    return tuple(found)


def _frame_rate(system: calls.System, fd: int, side: calls.BufferType) -> float:
    try:
        return v4l2.get_frame_rate(system, fd, side)
    except OSError:
        return 0.0


def module_version(sys_root: Path = Path("/sys")) -> str:
    """Return the version of the loaded v4l2loopback; empty when it is not loaded.

    Only versions since 0.13 show one.
    """
    module = sys_root / "module/v4l2loopback"
    return _read(module / "version") or (BEFORE_0_13 if module.exists() else "")


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
