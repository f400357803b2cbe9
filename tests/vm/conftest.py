"""Machines for the tests, one at a time, and the report of what was measured in them."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.interpreter import ROOT
from tests.support.stage import PERSON, PORTRAIT, RELAYD, Emulator, running_emulator
from tests.vm import container
from tests.vm.cache import RELEASES, CannotBoot, cache_directory
from tests.vm.guest import Guest, Machine, Note, Reload
from tests.vm.relays import Nursery

_figures: dict[str, object] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow each test the time that emulation takes; a first boot also fills the cache.

    What needs no `guest` comes first: the last one lives to the end of the run, and would take
    its part of the processors from a machine that a test boots for itself.
    """
    items.sort(key=lambda item: "guest" in getattr(item, "fixturenames", ()))
    for item in items:
        if item.get_closest_marker("vm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


def boot(machine: Machine) -> Guest:
    """Boot a machine, or skip the test and say loudly why there is none."""
    try:
        guest = Guest(machine)
    except CannotBoot as fault:
        pytest.skip(f"NO VIRTUAL MACHINE, SO NO REAL CAMERA IS TESTED: {fault}")
    note(f"boot {'with systemd, ' * machine.systemd}{guest.loopback}", f"{guest.booted_in:.1f} s")
    return guest


@pytest.fixture(scope="session", params=RELEASES)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A machine with one camera, for all tests of one version of v4l2loopback.

    A test leaves the module loaded as it was, and no program of its own running.
    """
    with boot(Machine(series=request.param)) as machine:
        yield machine


@pytest.fixture(scope="session")
def boot_machine() -> Callable[[Machine], AbstractContextManager[Guest]]:
    """How to boot a machine of your own, in a `with`."""
    return boot


@pytest.fixture(scope="session")
def kept_nursery(guest: Guest) -> Iterator[Nursery]:
    """A nursery that lives as long as its machine."""
    nursery = Nursery(guest)
    yield nursery
    nursery.stop()


@pytest.fixture
def nursery(guest: Guest, kept_nursery: Nursery) -> Iterator[Nursery]:
    """Where relays are started in `guest`; after the test no program is left there."""
    yield kept_nursery
    kept_nursery.end_all()
    guest.stop_programs(but=kept_nursery.process)


@pytest.fixture
def reload_module(guest: Guest, nursery: Nursery) -> Iterator[Reload]:
    """Load v4l2loopback with other parameters; after the test it is as it was.

    Also where a test failed after it had unloaded it: the next ones shall not fail as well.
    """

    def reload(options: str) -> None:
        unload = "! grep -q '^v4l2loopback ' /proc/modules || rmmod v4l2loopback"
        guest.run(f"{{ {unload}; }} && modprobe v4l2loopback {options}")

    yield reload
    nursery.end_all()
    guest.stop_programs(but=nursery.process)
    reload(guest.machine.options or "")


@pytest.fixture
def card(guest: Guest) -> Iterator[None]:
    """The loopback card, with the options that `relayd install` puts in place."""
    shipped = f"{ROOT}/config/modprobe.d/relayd-sound.conf"
    guest.run(f"modprobe snd-aloop $(sed -n 's/^options snd-aloop //p' {shipped})")
    yield
    guest.run("rmmod snd-aloop")


def note(name: str, figure: object) -> None:
    """Put a measured figure into the report."""
    _figures[name] = figure


@pytest.fixture(scope="session", name="note")
def _note() -> Note:
    """`note(name, figure)` puts what was measured into the report."""
    return note


_began = time.monotonic()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, and keep it as JSON."""
    if not _figures:
        return
    note("whole run", f"{time.monotonic() - _began:.0f} s")
    path = cache_directory() / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)  # absent where only containers were tried
    path.write_text(json.dumps(_figures, indent=2) + "\n")
    terminalreporter.section(f"measured in the virtual machines ({path})")
    for name, figure in sorted(_figures.items()):
        terminalreporter.write_line(f"{name}: {figure}")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb, as `make deb` makes it, but not compressed."""
    if missing := container.missing():
        pytest.skip(f"NO CONTAINER, SO THE SERVICE IS NOT TESTED: {missing}")
    folder = tmp_path_factory.mktemp("package")
    build = Path(__file__).parents[2] / "config" / "deb" / "build.sh"
    python = RELAYD.parent / "python"
    began = time.monotonic()
    command: list[str | Path] = [build, "--compress", "none", "--pip", python, "--to", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    note("building the .deb, not compressed", f"{time.monotonic() - began:.0f} s")
    (file,) = folder.glob("*.deb")
    return file


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person in a picture that an emulated processor decodes in time."""
    clip = tmp_path_factory.mktemp("vm") / "clip.ts"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", PERSON, "-an", "-vf", "scale=160:-2,fps=10",
         "-c:v", "libx264", "-preset", "ultrafast", "-tune", "fastdecode", "-g", "10",
         "-pix_fmt", "yuv420p", clip],
        check=True,
    )  # fmt: skip
    return clip


EMULATOR = (RELAYD, "emulator", "--port", "0", "--queue-seconds", "0.3")


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """The local stand-in of the service."""
    with running_emulator(*EMULATOR) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def service() -> Iterator[Emulator]:
    """Another one, which takes one key alone."""
    with running_emulator(*EMULATOR, "--api-key", container.KEY) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def face(service: Emulator) -> str:
    """URL of a face, from the service itself."""
    return service.upload(PORTRAIT)
