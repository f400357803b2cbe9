"""Video devices that answer as real drivers did: their answers were recorded in the machine.

`tests/v4l2/recorded.json` has them by name: vivid of Linux 6.1 as a webcam with its output and
metadata nodes, as an HDMI grabber and with separate planes, and v4l2loopback 0.15 with and without
a writer. Of vivid's formats the first are there. Node files are ordinary files in a folder.
"""

import json
import os
from pathlib import Path

from relayd.v4l2.calls import VIDIOC_STREAMOFF

_RECORDED: dict[str, dict[str, str | int]] = json.loads(
    (Path(__file__).parents[1] / "v4l2/recorded.json").read_text()
)


class RecordedDevices:
    """The system calls on a folder of node files, each of which is one of the recorded devices."""

    def __init__(self, dev_root: Path, nodes: dict[str, str]) -> None:
        """`nodes` maps the name of a file, such as "video0", to a recorded device."""
        self._nodes = nodes
        self._names: dict[int, str] = {}
        self.stopped: list[int] = []
        """Descriptors on which streaming was ended."""
        self.refuse_opening = 0
        """The errno that opening fails with."""
        for name in nodes:
            (dev_root / name).touch()

    def open(self, path: str, flags: int) -> int:
        if self.refuse_opening:
            raise OSError(self.refuse_opening, os.strerror(self.refuse_opening))
        fd = os.open(path, flags)
        self._names[fd] = Path(path).resolve().name
        return fd

    def close(self, fd: int) -> None:
        del self._names[fd]
        os.close(fd)

    def write(self, fd: int, data: memoryview) -> int:
        raise AssertionError("nothing is written to a capture device")

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        if request == VIDIOC_STREAMOFF:
            self.stopped.append(fd)
            return
        asked = f"{request:08x} {bytes(argument).rstrip(bytes(1)).hex()}"
        answer = _RECORDED[self._nodes[self._names[fd]]].get(asked, 22)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        argument[:] = bytes.fromhex(answer).ljust(len(argument), bytes(1))


def hardware_tree(sys_root: Path, nodes: list[str], hardware: str = "usb1/1-1:1.0") -> None:
    """Create a /sys in which these nodes belong to the same piece of hardware."""
    device = sys_root / "devices" / hardware
    device.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        entry = sys_root / "class/video4linux" / node
        entry.mkdir(parents=True)
        (entry / "name").write_text(f"name of {node}\n")
        (entry / "device").symlink_to(device)
