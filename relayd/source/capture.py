"""Capture devices as sources: what is asked of one before FFmpeg opens it, and what failed.

FFmpeg reports an errno at most. Here the device is asked, so that the error names the cause.
"""

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from relayd.errors import SourceError, SourceLost, SourceUnreachable, SourceUnusable, causes
from relayd.process.open_files import programs_with
from relayd.source.camera_mode import INPUT_FORMATS, ModeRequest, mode_options
from relayd.v4l2 import nodes
from relayd.v4l2.calls import CAP_STREAMING, Capability, Linux, Role, System, query_capability
from relayd.v4l2.modes import list_modes

_LIST: Final = "`relayd devices` lists what there is"
_NODE_SETTLES: Final = 5.0
"""s after a device's node appeared in which udev may not yet have given it to the group video."""
_TRY_ANOTHER_MODE: Final = {errno.EINVAL, errno.ENOSPC, errno.EIO, errno.EPROTO}
"""A mode that the device lists and yet refuses; ENOSPC: the USB bus has no bandwidth for it."""
_OTHER_ROLES: Final = {
    Role.METADATA: "delivers metadata, not pictures",
    Role.CONVERTER: "converts pictures (a codec or scaler) and delivers none of its own",
    Role.PLANES: "delivers pictures in separate planes, which FFmpeg cannot read",
    Role.OUTPUT: "is an output: it shows pictures and delivers none",
    Role.OTHER: "delivers no pictures",
}


class CaptureDevice:
    """A capture device of this machine, by its path."""

    def __init__(
        self,
        path: str,
        name: str,
        *,
        system: System | None = None,
        sys_root: Path = Path("/sys"),
        dev_root: Path = Path("/dev"),
        proc_root: Path = Path("/proc"),
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`name` is how errors call it."""
        self._path, self._name = path, name
        self._system = system or Linux()
        self._sys, self._dev, self._proc = sys_root, dev_root, proc_root
        self._wall_clock = wall_clock
        self._number: int | None = None

    def options(self, request: ModeRequest) -> list[dict[str, str]]:
        """Ask the device for its modes; returns FFmpeg's options, best first.

        Raises SourceError when it is not there, cannot be opened or delivers no pictures.
        """
        try:
            self._number = nodes.device_number(self._path)
            fd = self._system.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # as FFmpeg does
        except OSError as fault:
            raise self._cannot_open(fault) from None
        try:
            capability = query_capability(self._system, fd)
            self._require_pictures(capability)
            # A virtual camera has the mode that its writer set; choosing one could spoil that.
            modes = [] if capability.is_loopback else list_modes(self._system, fd, INPUT_FORMATS)
        except OSError as fault:
            if fault.errno in {errno.ENOTTY, errno.EINVAL}:
                raise SourceUnusable(f"{self._name} is not a capture device", hint=_LIST) from None
            raise self._cannot_open(fault) from None
        finally:
            self._system.close(fd)
        return mode_options(modes, request)

    def release(self) -> None:
        """End FFmpeg's wait for a picture, which has no limit of its own; from any thread."""
        if self._number is not None:
            nodes.release(self._number, self._system, self._proc)

    def wants_another_mode(self, error: SourceError) -> bool:
        """Whether another mode may be accepted where FFmpeg failed like this."""
        return _errno_of(error) in _TRY_ANOTHER_MODE

    def explained(self, error: SourceError) -> SourceError:
        """Return the error to report for one of FFmpeg's, as far as the device shows the cause."""
        match _errno_of(error):
            case errno.EBUSY:
                return self._busy()
            case errno.ENOSPC:
                return SourceUnreachable(
                    f"{self._name}: the USB bus has no room for its pictures",
                    hint="plug it into another port, or ask for a smaller video_size in"
                    " [source.options]",
                )
            case errno.ENODEV | errno.ENXIO | errno.ESHUTDOWN:
                if isinstance(error, SourceLost):
                    return SourceLost(f"{self._name} was unplugged")
                return SourceUnreachable(f"{self._name} was unplugged")
        return error

    def _cannot_open(self, fault: OSError) -> SourceError:
        name = self._name
        match fault.errno:
            case errno.ENOENT | errno.ENOTDIR | errno.ENODEV | errno.ENXIO:
                return SourceUnreachable(f"there is no device {name}", hint=_LIST)
            case errno.EBUSY:
                return self._busy()
            case errno.EACCES | errno.EPERM if self._is_new():
                return SourceUnreachable(f"{name} may not be read by this user yet")
            case errno.EACCES:
                return SourceUnusable(
                    f"{name} may not be read by this user",
                    hint="sudo usermod -aG video $USER, then log in again;"
                    " in a systemd unit: SupplementaryGroups=video",
                )
            case errno.EPERM:
                return SourceUnusable(
                    f"{name} may not be read by this process",
                    hint="allow it in the unit or container: DeviceAllow=char-video4linux rw",
                )
        return SourceUnreachable(f"{name}: {os.strerror(fault.errno or errno.EIO).lower()}")

    def _is_new(self) -> bool:
        """Whether its node appeared a moment ago, so that udev may still change its rights."""
        try:
            return self._wall_clock() - Path(self._path).stat().st_ctime < _NODE_SETTLES
        except OSError:
            return False

    def _busy(self) -> SourceError:
        with suppress(OSError):  # unplugged a moment ago
            if users := programs_with(self._path, proc_root=self._proc):
                return SourceUnreachable(f"{self._name} is in use by {' and '.join(users)}")
        return SourceUnreachable(
            f"{self._name} is in use by another program", hint=f"sudo fuser -v {self._path}"
        )

    def _require_pictures(self, capability: Capability) -> None:
        if capability.can_capture:
            if not capability.flags & CAP_STREAMING:
                raise SourceUnusable(f"{self._name} cannot stream, which FFmpeg needs")
            if self._number is not None and nodes.is_locked_here(self._number, self._proc):
                raise SourceUnusable(
                    f"{self._name} is the camera that this relay itself writes to",
                    hint=f"set [source] url to another one; {_LIST}",
                )
            return
        if capability.is_loopback:
            raise SourceUnreachable(
                f"{self._name} is a virtual camera, and no program writes to it now"
            )
        raise SourceUnusable(f"{self._name} {_OTHER_ROLES[capability.role]}", hint=self._sister())

    def _sister(self) -> str:
        """Return advice about a node of the same hardware that delivers pictures."""
        for path in nodes.sister_nodes(self._path, self._sys, self._dev):
            try:
                if nodes.capability_of(self._system, path).can_capture:
                    return f"use {nodes.lasting_names(self._dev).get(path, path)}"
            except OSError:
                continue
        return _LIST


def _errno_of(error: SourceError) -> int:
    """Return the errno that FFmpeg failed with; 0 when it had none."""
    numbers = (getattr(cause, "errno", None) for cause in causes(error))
    return next((number for number in numbers if isinstance(number, int)), 0)
