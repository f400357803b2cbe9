"""The virtual camera: a pyvirtualcam backend that reports its errors.

pyvirtualcam's own Linux backend sets no frame rate on the device, prints failed writes instead
of raising them, and leaves v4l2loopback 0.12 unusable after its first run. This backend opens
the device itself. Only this module imports pyvirtualcam.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyvirtualcam
from numpy.typing import NDArray

from relayd.errors import CameraUnavailable
from relayd.logs import LogEvent, get
from relayd.media.frames import Geometry, OutputFrame
from relayd.output import devices, v4l2
from relayd.output.device_choice import find_device, is_path, modprobe
from relayd.v4l2 import calls

_log = get("camera")

_BACKEND: Final = "relayd"


class Loopback:
    """One open v4l2loopback device that accepts I420 pictures of a fixed size."""

    def __init__(
        self,
        path: str,
        geometry: Geometry,
        fps: float,
        system: calls.System,
        *,
        version: str = "",
        was_open: bool = False,
    ) -> None:
        """Open `path`; raises CameraUnavailable with what is wrong and how to fix it.

        `version` is that of the loaded module; it is only used in error messages. A device that
        `was_open` is in a call: a wrong setting that does not stop it is only logged then.
        """
        self.path = path
        self.geometry = geometry
        self._system = system
        self._was_open = was_open
        self._fd = _open(system, path)
        try:
            self._require_writable(version)
            self._fix_format()
            self._set_frame_rate(fps)
            v4l2.mark_as_writer(system, self._fd)
            self._require_exclusive_caps()
        except OSError as fault:
            self.close()
            raise CameraUnavailable(f"{path}: {_reason(fault)}", hint=_reload()) from fault
        except CameraUnavailable:
            self.close()
            raise

    def _require_writable(self, version: str) -> None:
        try:
            capability = calls.query_capability(self._system, self._fd)
        except OSError as fault:
            if fault.errno in {errno.ENOTTY, errno.EINVAL}:
                raise CameraUnavailable(
                    f"{self.path} is not a video device",
                    hint="`relayd devices` lists what there is",
                ) from fault
            raise
        if not capability.is_loopback:
            raise CameraUnavailable(
                f"{self.path} is a real device ({capability.card or capability.driver}),"
                " not a virtual camera",
                hint=f'choose a v4l2loopback device or device = "auto"; to make one: {modprobe()}',
            )
        if v4l2.has_control(self._system, self._fd, v4l2.KEEP_FORMAT):
            error = CameraUnavailable(
                f"{self.path} has keep_format=1: it may accept no pictures after a restart",
                hint=f"v4l2-ctl -d {self.path} -c keep_format=0",
            )
            self._refuse(error, is_fatal=not capability.can_output)
        if capability.can_output:
            return
        if not capability.can_capture:
            raise CameraUnavailable(
                f"{self.path} no longer accepts pictures: v4l2loopback before 0.13 gets stuck"
                " like this when a program that wrote to it ends",
                hint=f"close the programs that use it, then: {_reload()}",
            )
        if version == devices.BEFORE_0_13:
            raise CameraUnavailable(
                f"another program writes to {self.path}, or it got stuck when one ended"
                f" (v4l2loopback {version})",
                hint=f"end that program, close those that watch the camera, then: {_reload()}",
            )
        raise CameraUnavailable(f"another program writes to {self.path}", hint="end that program")

    def _fix_format(self) -> None:
        wanted = v4l2.i420_format(self.geometry)
        try:
            given = v4l2.set_format(self._system, self._fd, wanted)
        except OSError as fault:
            if fault.errno != errno.EBUSY:
                raise
            raise CameraUnavailable(
                f"{self.path} is in use: it cannot be set to {self.geometry}",
                hint="close the programs that read from it or write to it",
            ) from fault
        # A device that is being read may accept the format and still keep its old one.
        kept = v4l2.get_format(self._system, self._fd, calls.BufferType.OUTPUT)
        for answer in (given, kept):
            if not answer.holds(wanted):
                raise CameraUnavailable(
                    f"{self.path} stays at {answer.fourcc} {answer.width}x{answer.height}"
                    f" instead of {wanted.fourcc} {self.geometry}",
                    hint="close the programs that read from it",
                )

    def _set_frame_rate(self, fps: float) -> None:
        try:
            v4l2.set_frame_rate(self._system, self._fd, Fraction(fps).limit_denominator(1001))
        except OSError as fault:  # readers assume 30 fps; nothing else breaks
            _log.warning(
                LogEvent.CAMERA_FRAME_RATE_REFUSED, device=self.path, fps=fps, reason=_reason(fault)
            )

    def _require_exclusive_caps(self) -> None:
        """Refuse a device that shows both its capture and output side although it has a writer.

        It cannot be checked earlier: without a writer, 0.12 and 0.13 show both sides even with
        exclusive_caps set, as long as a program still reads; and the module's parameters do not
        cover devices that were added later.
        """
        capability = calls.query_capability(self._system, self._fd)
        if capability.can_output and capability.can_capture:
            error = CameraUnavailable(
                f"{self.path} has exclusive_caps=0: Chrome, Zoom and Meet would not list it",
                hint=f"with a 1 for each camera: {_reload()}",
            )
            self._refuse(error, is_fatal=False)

    def _refuse(self, error: CameraUnavailable, *, is_fatal: bool) -> None:
        """Raise `error`; in a call that can go on despite it, only log it."""
        if is_fatal or not self._was_open:
            raise error
        _log.warning(LogEvent.CAMERA_MISCONFIGURED, device=self.path, reason=str(error))

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Write one picture (uint8, flat, `geometry.nbytes`); raises CameraUnavailable."""
        try:
            written = self._system.write(self._fd, picture.data)
        except OSError as fault:
            hint = modprobe() if fault.errno == errno.ENODEV else ""
            raise CameraUnavailable(
                f"{self.path} refused a picture: {_reason(fault)}", hint=hint
            ) from fault
        if written != self.geometry.nbytes:
            raise CameraUnavailable(
                f"{self.path} took {written} of {self.geometry.nbytes} bytes:"
                " another program changed its format"
            )

    def close(self) -> None:
        """Close the device; other programs no longer list the camera."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._system.close(fd)


def _reload() -> str:
    return f"sudo modprobe -r v4l2loopback && {modprobe()}"


def _open(system: calls.System, path: str) -> int:
    try:
        fd = system.open(path, os.O_RDWR)
    except OSError as fault:
        is_missing = fault.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}
        hint = modprobe() if is_missing else _OPEN_HINTS.get(fault.errno or 0, "")
        raise CameraUnavailable(f"{path}: {_reason(fault)}", hint=hint) from fault
    # Other relays cannot read this one's /proc entry; the lock shows them who has the device
    # (device_use).
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


_OPEN_HINTS: Final = {
    errno.EACCES: "sudo usermod -aG video $USER, then log in again;"
    " in a systemd unit: SupplementaryGroups=video",
    errno.EPERM: "allow the device in the unit or container: DeviceAllow=char-video4linux rw",
    errno.EBUSY: "close the programs that use it, or raise the module's max_openers",
}


def _reason(fault: OSError) -> str:
    return os.strerror(fault.errno).lower() if fault.errno else str(fault)


class _PyvirtualcamBackend:
    """The backend interface of pyvirtualcam, on a device that is already open."""

    def __init__(self, *, loopback: Loopback, **_settings: Any) -> None:
        self._loopback = loopback

    def close(self) -> None:
        self._loopback.close()

    def send(self, frame: NDArray[np.uint8]) -> None:
        self._loopback.write(frame)

    def device(self) -> str:
        return self._loopback.path

    def native_fourcc(self) -> int:
        return int.from_bytes(b"I420", "little")


pyvirtualcam.register_backend(_BACKEND, _PyvirtualcamBackend)


class CameraOutput:
    """The virtual camera as an output of the relay."""

    def __init__(
        self,
        device: str,
        geometry: Geometry,
        fps: float,
        *,
        system: calls.System | None = None,
        list_devices: Callable[[], list[devices.VideoDevice]] | None = None,
        sys_root: Path = Path("/sys"),
    ) -> None:
        """Prepare to write pictures of `geometry` to `device`: a path, a card label or "auto"."""
        self._wanted = self._name = device
        self._geometry, self._fps = geometry, fps
        self._system = system or calls.Linux()
        self._list_devices = list_devices or (lambda: devices.list_devices(sys_root))
        self._sys_root = sys_root
        self._camera: pyvirtualcam.Camera | None = None
        self._was_open = False

    @property
    def name(self) -> str:
        """The device's path; until it was first opened, `device` as configured."""
        return self._name

    def open(self) -> None:
        """Open the device; raises CameraUnavailable with what is wrong and how to fix it."""
        if self._camera:
            return
        path = (
            self._wanted
            if is_path(self._wanted)
            else find_device(self._list_devices(), self._wanted)
        )
        version = devices.module_version(self._sys_root)
        loopback = Loopback(
            path,
            self._geometry,
            self._fps,
            self._system,
            version=version,
            was_open=self._was_open,
        )
        self._camera = pyvirtualcam.Camera(
            self._geometry.width,
            self._geometry.height,
            self._fps,
            fmt=pyvirtualcam.PixelFormat.I420,
            device=path,
            backend=_BACKEND,
            loopback=loopback,
        )
        self._name, self._was_open = path, True
        _log.info(LogEvent.CAMERA_OPENED, device=path, module=version, fps=self._fps)

    def show(self, frame: OutputFrame) -> None:
        """Copy one picture into the driver's memory; raises CameraUnavailable."""
        if self._camera is None:
            raise CameraUnavailable(f"{self._wanted} is not open")
        self._camera.send(frame.i420)

    def close(self) -> None:
        """Close the device; other programs no longer list the camera."""
        if self._camera:
            self._camera.close()
            self._camera = None
