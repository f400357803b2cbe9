import subprocess
import sys
from pathlib import Path

import relayd

SNIPPET = """
from relayd.media.frames import SourceFrame
from relayd.output.base import Output
from relayd.output.camera import CameraOutput
from relayd.output.preview import Preview
from relayd.output.stream import StreamOutput


def leak(
    frame: SourceFrame, any: Output, camera: CameraOutput, stream: StreamOutput, page: Preview
) -> None:
    any.show(frame)
    camera.show(frame)
    stream.show(frame)
    page.show(frame)


def fits(camera: CameraOutput, stream: StreamOutput, page: Preview) -> list[Output]:
    return [camera, stream, page]
"""


def test_the_type_checker_refuses_to_send_a_raw_face_to_any_output(tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    root = Path(relayd.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    refused = [line for line in done.stdout.splitlines() if "[arg-type]" in line]
    assert len(refused) == 4, done.stdout + done.stderr
    assert all('has incompatible type "SourceFrame"' in line for line in refused)
    assert "Found 4 errors" in done.stdout


def test_the_one_conversion_is_called_in_one_place() -> None:
    package = Path(relayd.__file__).parent
    users = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "expose_source(" in path.read_text()
    ]
    assert sorted(users) == ["media/frames.py", "output/clock.py"]
