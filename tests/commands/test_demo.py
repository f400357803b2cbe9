from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from relayd.commands.demo import DemoOptions, _camera, _microphone, run_demo
from relayd.errors import CameraUnavailable, UsageError
from relayd.output.camera import CameraOutput


def test_a_demo_says_why_it_takes_no_camera_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_camera: CameraOutput) -> None:
        raise CameraUnavailable("/dev/video0 [loop] is set up wrongly", hint="sudo repair [it]")

    monkeypatch.setattr(CameraOutput, "open", refuse)
    output = StringIO()
    options = DemoOptions("", "", 0, 0.0, None, use_camera=True, use_microphone=False)
    assert _camera(options, Console(file=output)) is False
    assert "/dev/video0 [loop] is set up wrongly" in output.getvalue()
    assert "sudo repair [it]" in output.getvalue()


def test_a_demo_says_why_it_offers_no_microphone_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no pactl
    output = StringIO()
    options = DemoOptions("", "", 0, 0.0, None, use_camera=False, use_microphone=True)
    assert _microphone(options, Console(file=output, width=200)) is False
    assert "no program can hear the voice: " in output.getvalue()


async def test_a_demo_refuses_a_recording_whose_name_says_no_format() -> None:
    options = DemoOptions("", "", 0, 0.0, Path("x.avi"), use_camera=False, use_microphone=False)
    with pytest.raises(UsageError, match="--record: no container is known") as caught:
        await run_demo(options)
    assert ".mp4" in caught.value.hint
