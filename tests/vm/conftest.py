"""The package under test, and the service that its relays talk to."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import PORTRAIT, RELAYD, Emulator
from tests.vm import container

KEY = "the-key-of-the-tests"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb, as `make deb` makes it, but not compressed."""
    if missing := container.missing():
        pytest.skip(f"NO CONTAINER, SO THE SERVICE IS NOT TESTED: {missing}")
    folder = tmp_path_factory.mktemp("package")
    build = Path(__file__).parents[2] / "config" / "deb" / "build.sh"
    python = RELAYD.parent / "python"
    command = [build, "--compress", "none", "--pip", python, "--to", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.deb")
    return file


@pytest.fixture(scope="session")
def service() -> Iterator[Emulator]:
    """The local stand-in of the service, which takes one key alone."""
    process = subprocess.Popen(
        [RELAYD, "emulator", "--port", "0", "--queue-seconds", "0.2", "--api-key", KEY],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("relayd emulator ready at http://"), line
    yield Emulator(line.split()[-1], process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.fixture(scope="session")
def face(service: Emulator) -> str:
    """URL of a face, from the service itself."""
    return service.upload(PORTRAIT)
