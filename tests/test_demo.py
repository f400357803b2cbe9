from io import StringIO

import pytest
from rich.console import Console

from relayd.demo import DemoOptions, _camera
from relayd.errors import CameraUnavailable
from relayd.output.camera import CameraOutput


def test_a_demo_says_why_it_takes_no_camera_and_goes_on(monkeypatch: pytest.MonkeyPatch):
    def refuse(_camera: CameraOutput) -> None:
        raise CameraUnavailable("/dev/video0 [loop] is set up wrongly", mend="sudo mend [it]")

    monkeypatch.setattr(CameraOutput, "open", refuse)
    said = StringIO()
    options = DemoOptions("", "", 0, 0.0, None, use_camera=True)
    assert _camera(options, Console(file=said)) is False
    assert "/dev/video0 [loop] is set up wrongly" in said.getvalue()
    assert "sudo mend [it]" in said.getvalue()
