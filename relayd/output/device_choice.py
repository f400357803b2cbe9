"""Which device a camera output writes to, as `device` of its table says.

A path is used as it is; "auto" means any virtual camera; anything else is a card label, the
name under which programs list the camera. A real camera is never chosen.
"""

from pathlib import Path
from typing import Final

from relayd.errors import CameraUnavailable
from relayd.output.devices import VideoDevice

AUTO: Final = "auto"
OWN_LABEL: Final = "relayd"
"""The card label that `device = "auto"` prefers."""
OPTIONS_FILE: Final = Path("/etc/modprobe.d/relayd.conf")
"""Where an installed relayd keeps the module's options."""
_LONGEST_LABEL: Final = 31
"""Characters of a label that the kernel keeps."""


def modprobe() -> str:
    """Return the command that makes virtual cameras; its options override installed ones."""
    command = "sudo modprobe v4l2loopback"
    if OPTIONS_FILE.exists():
        return command
    return f"{command} devices=1 exclusive_caps=1 card_label=relayd"


def is_path(device: str) -> bool:
    """Whether `device` names a file; anything else but "auto" is a label."""
    return "/" in device


def find_device(devices: list[VideoDevice], wanted: str = AUTO) -> str:
    """Return the path of the loopback camera that `wanted` ("auto" or a label) means.

    One that can be written to comes first; if none can, opening the returned one raises an error
    that explains why. Raises CameraUnavailable when there is none.
    """
    loopbacks = [device for device in devices if device.is_loopback]
    if wanted == AUTO:
        if not loopbacks:
            raise CameraUnavailable("there is no virtual camera", hint=modprobe())
        best = min(loopbacks, key=lambda one: (not one.can_output, one.label != OWN_LABEL))
        return best.path
    labelled = [device for device in loopbacks if device.label == wanted[:_LONGEST_LABEL]]
    if not labelled:
        there = ", ".join(f'"{device.label}"' for device in loopbacks) or "none"
        raise CameraUnavailable(
            f'there is no virtual camera labelled "{wanted}"; existing labels: {there}',
            hint="use one of them, a path, or auto; or load v4l2loopback with card_label=…",
        )
    return min(labelled, key=lambda device: not device.can_output).path
