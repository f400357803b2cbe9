"""What `relayd devices` prints of each video device."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from relayd.config.settings import VideoSettings
from relayd.output.devices import VideoDevice
from relayd.source.camera_mode import ModeRequest, mode_options
from relayd.v4l2 import nodes
from relayd.v4l2.calls import Linux, Role, System, query_capability
from relayd.v4l2.modes import Mode, list_formats, list_modes

_LOOPBACK: Final = "loopback camera"
_UNKNOWN: Final = "-"
_MOST_FORMATS: Final = 8
"""Formats of a device that are printed: cameras have two or three, test drivers a hundred."""


@dataclass(frozen=True, slots=True)
class Details:
    """What is shown of a device beside what outputs need to know."""

    kind: str
    modes: tuple[Mode, ...]
    lasting_name: str
    """udev's, which stays when the device is plugged in again; empty if there is none."""


Listed = tuple[VideoDevice, Details]


def as_lines(found: list[Listed]) -> Iterator[str]:
    """Return the lines to print: one for a device, and below a camera's one for each format."""
    for device, details in found:
        access = ("r" if device.readable else "-") + ("w" if device.writable else "-")
        now = "" if details.modes else " ".join(device.formats)
        rate = f" {_rate(device.fps)} fps" if now and device.fps else ""
        parts = (device.path, access, details.kind, device.label, now + rate, device.problem)
        yield "  ".join(part for part in parts if part)
        if details.lasting_name:
            yield f"    {details.lasting_name}"
        yield from (f"    {line}" for line in _mode_lines(details.modes))


def as_records(found: list[Listed]) -> list[dict[str, Any]]:
    """Return the same for programs."""
    return [_record(device, details) for device, details in found]


def look_at(
    devices: list[VideoDevice], dev_root: Path = Path("/dev"), system: System | None = None
) -> list[Listed]:
    """Ask each device for what is shown of it."""
    names = nodes.lasting_names(dev_root)
    system = system or Linux()
    found = []
    for device in devices:
        kind, modes = _LOOPBACK, list[Mode]()
        if not device.is_loopback:
            kind, modes = _kind_and_modes(device.path, system)
        found.append((device, Details(kind, tuple(modes), names.get(device.path, ""))))
    return found


def _kind_and_modes(path: str, system: System) -> tuple[str, list[Mode]]:
    try:
        fd = system.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # the device's problem says why
        return _UNKNOWN, []
    try:
        role = query_capability(system, fd).role
        fourccs = list_formats(system, fd) if role is Role.CAPTURE else ()
        return role.value, list_modes(system, fd, fourccs)
    except OSError:  # as above
        return _UNKNOWN, []
    finally:
        system.close(fd)


def _mode_lines(modes: tuple[Mode, ...]) -> Iterator[str]:
    """Return a line for each format, with its sizes and the highest rate of each."""
    formats = [(name, list(same)) for name, same in groupby(modes, lambda mode: mode.fourcc)]
    for fourcc, same in formats[:_MOST_FORMATS]:
        yield f"{fourcc}  {', '.join(_size_and_rate(mode) for mode in same)}"
    if len(formats) > _MOST_FORMATS:
        yield f"and {len(formats) - _MOST_FORMATS} more formats"
    if modes:
        yield _choice(modes)


def _size_and_rate(mode: Mode) -> str:
    rate = f" {_rate(mode.rates[0])} fps" if mode.rates else ""
    return f"{mode.width}x{mode.height}{rate}"


def _choice(modes: Iterable[Mode]) -> str:
    """Return what relayd would take for a relay with the usual settings."""
    video = VideoSettings()
    options = mode_options(list(modes), ModeRequest(video.geometry, video.fps, {}))[0]
    if not options:
        return "relayd takes its present mode"
    rate = f" at {_rate(Fraction(options['framerate']))} fps" if "framerate" in options else ""
    return (
        f"relayd takes {options['input_format']} {options['video_size']}{rate}"
        f" for {video.geometry} at {video.fps:g} fps"
    )


def _record(device: VideoDevice, details: Details) -> dict[str, Any]:
    return {
        "device": device.path,
        "label": device.label,
        "driver": device.driver,
        "kind": details.kind,
        "lasting_name": details.lasting_name,
        "readable": device.readable,
        "writable": device.writable,
        "problem": device.problem,
        "formats": list(device.formats),
        "fps": device.fps,
        "modes": [
            {
                "format": mode.fourcc,
                "width": mode.width,
                "height": mode.height,
                "fps": [round(float(rate), 3) for rate in mode.rates],
            }
            for mode in details.modes
        ],
    }


def _rate(rate: Fraction | float) -> str:
    return f"{round(float(rate), 2):g}"
