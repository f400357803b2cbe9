"""The .deb's life: as a whole in a container, and on a machine with a real camera.

The container installs it beside its real dependency, v4l2loopback-dkms with dkms, which finds no
kernel headers there and so compiles nothing. In the machine the tests go on where the one before
ended: install, run, kill, upgrade, purge. An emulated dpkg is slow, a minute for the 4700 files of
the package each time, so there its Python libraries lie beside it, through a link (the whole
package with RELAYD_VM_WHOLE_PACKAGE=1), a stand-in takes the dependency's place, and udev is
unpacked, not installed. The module that modprobe loads is the machine's own, of Debian's source.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from relayd.frames import Geometry
from relayd.output.standby import StandbyArtist
from tests.e2e.stage import Emulator, wait_for
from tests.vm import cache
from tests.vm.container import KEY, Container
from tests.vm.guest import HOST, Failed, Guest, Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

NEXT = "0.1.0+1"
DEPENDENCIES = ("dkms", "v4l2loopback-dkms")
OF_DKMS = ("dpkg-dev", "gcc", "make", "patch", "kmod")  # its dependencies: the host has them
INSTALL = "DEBIAN_FRONTEND=noninteractive dpkg --no-triggers --force-unsafe-io -i"
SLOW = 120.0  # s; emulation, on a busy machine
BESIDE = "/srv/relayd-lib"  # where the machine's package finds its Python libraries
SIZE = Geometry(640, 480)

Note = Callable[[str, object], None]


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What apt would fetch beside the package."""
    cache.install(OF_DKMS)
    return download(tmp_path_factory.mktemp("dependencies"), *DEPENDENCIES)


@pytest.fixture(scope="module")
def udev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of udev, and those of the library of its very version."""
    folder = tmp_path_factory.mktemp("udev")
    for package in download(folder, "udev", "libudev1"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    return folder / "root"


def download(folder: Path, *packages: str) -> list[Path]:
    fetch = ["apt-get", "-qq", "download", *packages]
    if subprocess.run(fetch, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        done = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NO PACKAGES, SO THE .deb IS NOT TESTED: {done.stderr}")
    return sorted(folder.glob("*.deb"))


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files."""
    root = tmp_path_factory.mktemp("unpacked") / "root"
    subprocess.run(["dpkg-deb", "-R", package, root], check=True)
    return root


@pytest.fixture(scope="module")
def upgrade(unpacked: Path) -> Path:
    """The next version of the package: the same, but for its number."""
    return build(unpacked, NEXT)


@pytest.fixture(scope="module")
def packages(
    package: Path, upgrade: Path, unpacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """What the machine is given, in two versions."""
    if os.environ.get("RELAYD_VM_WHOLE_PACKAGE"):
        return package, upgrade
    root = tmp_path_factory.mktemp("light") / "root"
    libraries = str(unpacked / "usr/lib/relayd")
    shutil.copytree(
        unpacked,
        root,
        symlinks=True,
        ignore=lambda folder, names: {"lib", "lib64"} & {*names} if folder == libraries else (),
    )
    (root / "usr/lib/relayd/lib").symlink_to(BESIDE)
    return build(root, "0.1.0"), build(root, NEXT)


def build(root: Path, version: str) -> Path:
    control = root / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
    file = root.with_name(f"relayd_{version}.deb")
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, file], check=True)
    return file


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the machine may put files for us."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machine(
    boot_machine: Callable[[Machine], AbstractContextManager[Guest]],
    shared: Path,
    unpacked: Path,
    udev: Path,
) -> Iterator[Guest]:
    """A machine with systemd and udev, and no camera yet."""
    with boot_machine(Machine(systemd=True, options=None, memory=3072, shared=shared)) as guest:
        guest.run(f"cd {udev} && for folder in *; do cp -a $folder/. /$folder/; done")
        guest.run("systemctl daemon-reload && systemctl start systemd-udevd")
        guest.run(f"mkdir -p {BESIDE} && mount --bind {unpacked}/usr/lib/relayd/lib {BESIDE}")
        yield guest


@pytest.fixture(scope="module")
def config(service: Emulator, face: str) -> str:
    """A relay whose session waits in the service's queue, so that it shows one standby picture."""
    service.fault("queue", queue_seconds=600)
    there = service.url.replace("127.0.0.1", HOST)
    return f"""
[source]
url = "testsrc2=size=640x480:rate=5"
format = "lavfi"
[face]
image = "{face}"
[akool]
base_url = "{there}"
[rtc]
kind = "webrtc"
[on_demand]
mode = "never"
[[output]]
kind = "camera"
device = "/dev/relayd/0"
"""


def show(machine: Guest, name: str) -> str:
    return machine.run(f"systemctl show -p {name} --value relayd@studio").strip()


def shown(machine: Guest, shared: Path) -> np.ndarray:
    """Give a frame that a reader of the camera gets, as I420."""
    file = shared / "frame"
    machine.run(
        f"v4l2-ctl -d /dev/video40 --stream-mmap --stream-skip 2 --stream-count 1"
        f" --stream-to {file}"
    )
    return np.frombuffer(file.read_bytes(), np.uint8).reshape(SIZE.shape)


def standby(machine: Guest) -> np.ndarray:
    """Give the picture that the relay ought to show, drawn here from what it says of itself."""
    told = json.loads(machine.run("relayd status studio --json", status=1))
    return StandbyArtist(SIZE).draw(told["state_words"], told["reason"]).i420


def assert_alike(seen: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(seen.astype(int) - expected.astype(int)).mean()
    assert difference < 0.5, f"{difference:.2f} of 255 off, on average"


def test_it_installs_and_starts_nothing(machine: Guest, packages: tuple[Path, Path], shared: Path):
    stand_in = shared / "stand-in"
    (stand_in / "DEBIAN").mkdir(parents=True)
    (stand_in / "DEBIAN/control").write_text(STAND_IN)
    subprocess.run(["dpkg-deb", "-b", stand_in, shared / "stand-in.deb"], check=True)
    machine.run(f"{INSTALL} {shared}/stand-in.deb {packages[0]}", within=300)
    assert machine.run("relayd --version").strip() == "relayd 0.1.0"
    assert "(video)" in machine.run("id relayd")
    assert machine.run("stat -c '%a %U:%G' /etc/relayd").strip() == "750 root:relayd"
    assert machine.run("systemctl list-units --plain --no-legend 'relayd@*'") == ""


STAND_IN = """\
Package: v4l2loopback-dkms
Version: 0.12.7-2
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: stand-in
"""


def test_two_cameras_with_names_that_stay_are_there_as_at_boot(machine: Guest):
    machine.run("systemctl restart systemd-modules-load && udevadm settle")
    assert machine.run("cat /sys/class/video4linux/video4[01]/name") == "relayd\nrelayd 2\n"
    assert machine.run("readlink -f /dev/relayd/0 /dev/relayd/1") == "/dev/video40\n/dev/video41\n"
    assert machine.run("stat -Lc '%a %U:%G' /dev/relayd/0").strip() == "660 root:video"
    assert machine.run("cat /sys/module/v4l2loopback/parameters/exclusive_caps")[:3] == "Y,Y"


def test_start_returns_with_the_standby_picture_on_the_camera(
    machine: Guest, shared: Path, config: str, service: Emulator, note: Note
):
    machine.write("/etc/credstore/akool-api-key", KEY)
    machine.write("/etc/relayd/studio.toml", config)
    machine.run("systemctl start relayd@studio", within=SLOW)
    assert show(machine, "ActiveState") == "active"
    wait_until_queued(machine, service)
    assert_alike(shown(machine, shared), standby(machine))
    size = int(machine.run("cat /sys/fs/cgroup/system.slice/system-relayd.slice/*/memory.current"))
    note("memory of a relay in its session's queue, whole unit", f"{size / 2**20:.0f} MiB")


def test_after_sigkill_the_session_is_closed_and_the_next_start_finds_the_camera(
    machine: Guest, shared: Path, service: Emulator, note: Note
):
    killed = ids(service)
    began = time.monotonic()
    machine.run(f"kill -KILL {show(machine, 'MainPID')}")
    wait_for("its close", lambda: not killed & ids(service), SLOW, 0.2)
    note("SIGKILL to its session closed, emulated", f"{time.monotonic() - began:.0f} s")
    wait_for("restart", lambda: show(machine, "NRestarts") == "1", SLOW, 0.5)
    wait_for("READY", lambda: show(machine, "ActiveState") == "active", SLOW, 0.5)
    note("SIGKILL to READY again, emulated", f"{time.monotonic() - began:.0f} s")
    wait_until_queued(machine, service)
    assert_alike(shown(machine, shared), standby(machine))


def wait_until_queued(machine: Guest, service: Emulator) -> None:
    wait_for("a session", service.sessions, SLOW, 0.2)
    queued = "Waiting in the service's queue"
    wait_for("its queue", lambda: show(machine, "StatusText") == queued, SLOW, 0.2)


def test_an_upgrade_restarts_the_relay_and_keeps_what_was_edited(
    machine: Guest, packages: tuple[Path, Path], service: Emulator
):
    before, old = show(machine, "MainPID"), ids(service)
    machine.run("echo '# mine' >>/etc/modprobe.d/relayd.conf")
    machine.run(f"{INSTALL} {packages[1]}", within=300)
    assert NEXT in machine.run("dpkg-query -W relayd")
    assert show(machine, "ActiveState") == "active"
    assert show(machine, "MainPID") not in (before, "0")
    assert machine.run("tail -1 /etc/modprobe.d/relayd.conf").strip() == "# mine"
    assert not old & ids(service), "the old relay's session was closed"


def test_purge_closes_the_session_and_leaves_nothing_but_the_state(
    machine: Guest, service: Emulator
):
    wait_for("a session", service.sessions, SLOW, 0.2)
    machine.run("dpkg --no-triggers -P relayd", within=SLOW)
    assert service.sessions() == []
    machine.run("! pgrep -u relayd")
    assert len(machine.run("cat /var/lib/relayd/studio/history.jsonl").splitlines()) == 3
    places = "/etc /run /usr/bin /usr/lib/systemd /usr/lib/udev /usr/lib/tmpfiles.d"
    places += (
        " /usr/lib/sysusers.d /usr/lib/modprobe.d /usr/share/doc /usr/share/lintian /var/cache"
    )
    found = machine.run(
        f"find {places} -path /run/vm -prune -o -path /run/udev -prune -o"
        " \\( -name '*relayd*' -o -name 'akool*' \\) -print"
    )
    assert found == "", found
    assert machine.run("ls -d /usr/lib/relayd 2>/dev/null", status=2) == ""
    assert machine.run("stat -c %U /var/lib/relayd/studio").strip() == "relayd"
    assert machine.run("dpkg-query -W -f '${Status}' relayd 2>/dev/null", status=1) == ""


def ids(service: Emulator) -> set[str]:
    return {session["_id"] for session in service.sessions()}


def test_nothing_went_wrong_in_the_kernel(machine: Guest):
    said = machine.run("dmesg --level=emerg,alert,crit,err || true")
    if "BUG" in said or "Oops" in said:
        raise Failed(said)


@pytest.fixture
def box() -> Iterator[Container]:
    box = Container()
    yield box
    box.stop()


def test_the_whole_package_installs_runs_upgrades_and_purges(
    box: Container, package: Path, upgrade: Path, dependencies: list[Path], config: str
):
    """In a container, whose every written file can be seen afterwards."""
    camera = '"camera"\ndevice = "/dev/relayd/0"'
    toml = config.replace(HOST, "127.0.0.1").replace(camera, '"stream"\nurl = "/run/out.mkv"')
    box.run(f"{INSTALL} {' '.join(map(str, dependencies))}")
    assert box.run("dkms status").endswith(": added"), "nothing was compiled"
    clean = box.written()
    box.run(f"{INSTALL} {package}")
    box.run("dpkg --verify relayd")
    box.run("/usr/lib/relayd/bin/python -m pip --version")  # agora-install needs it
    box.write("/etc/credstore/akool-api-key", KEY, 0o600)
    box.write("/etc/relayd/studio.toml", toml)
    box.run("systemctl enable --now relayd@studio")
    before = box.run("systemctl show -p MainPID --value relayd@studio")
    box.run(f"{INSTALL} {upgrade}")
    assert box.run("systemctl show -p MainPID --value relayd@studio") not in (before, "0")
    assert box.run("systemctl is-active relayd@studio") == "active"
    box.run("dpkg -r relayd")
    box.run("ls /etc/relayd/studio.toml /etc/modprobe.d/relayd.conf")
    box.run("dpkg -P relayd")
    left = {path for path in box.written() - clean if not path.startswith(STAYS)}
    assert left == set()


STAYS = (
    "var/lib/relayd",
    "var/lib/dpkg/",
    "var/lib/systemd/",
    "var/log/",
    "var/cache/",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "etc/subuid",
    "etc/subgid",
)
"""The state; and where dpkg, systemd and the making of a user leave their own traces."""
